"""Our group normalisation is torch's, with a gradient of its own in bfloat16."""

import pytest
import torch
from torch import nn

from xr2ct.group_norm import GroupNorm, Normalise


def norms(groups: int, channels: int) -> tuple[GroupNorm, nn.GroupNorm]:
    """Ours, and torch's in float64, with the same parameters."""
    ours, exact = GroupNorm(groups, channels), nn.GroupNorm(groups, channels).double()
    generator = torch.Generator().manual_seed(channels)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn(channels, generator=generator))
    exact.load_state_dict(ours.state_dict())
    return ours, exact


def passed(norm: nn.Module, value: torch.Tensor, pull: torch.Tensor) -> list[torch.Tensor]:
    """Output and gradients of value, weight and bias."""
    value = value.clone().requires_grad_()
    out = norm(value)
    out.backward(pull)
    return [out.detach(), value.grad, norm.weight.grad, norm.bias.grad]


@pytest.mark.parametrize(("groups", "channels"), [(8, 16), (4, 4), (8, 24), (1, 3)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_output_and_gradients_are_those_of_float64_to_the_rounding_of_bfloat16(groups, channels, layout):
    ours, exact = norms(groups, channels)
    value = (3 * torch.randn(2, channels, 9, 7) + 1).bfloat16().contiguous(memory_format=layout)
    pull = torch.randn(2, channels, 9, 7).bfloat16()
    found = passed(ours, value, pull)
    expected = passed(exact, value.double(), pull.double())
    assert [one.dtype for one in found] == [torch.bfloat16] * 2 + [torch.float32] * 2
    assert found[1].stride() == value.stride()
    for one, true, tolerance in zip(found, expected, [4e-3, 4e-3, 1e-5, 1e-5], strict=True):
        assert (one.double() - true).norm() < tolerance * true.norm()


def test_float32_and_evaluation_take_torchs_own_way(monkeypatch):
    monkeypatch.setattr(Normalise, "apply", lambda *_: pytest.fail("not asked for"))
    ours, _ = norms(2, 4)
    value = torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(ours(value), nn.functional.group_norm(value, 2, ours.weight, ours.bias), rtol=0, atol=0)
    with torch.no_grad():
        assert ours(value.bfloat16()).dtype == torch.bfloat16
