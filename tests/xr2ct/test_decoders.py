"""The three decoders share one contract and differ in nothing but what they share."""

import pytest
import torch

from xr2ct.errors import UserError
from xr2ct.models.decoders import DECODERS, Mlp

HIDDEN, LAYERS, CLASSES = 16, 4, 3


def make(name, repeat_input=False):
    torch.manual_seed(0)
    return DECODERS[name](HIDDEN, LAYERS, CLASSES, repeat_input)


def gradients(decoder, first, output):
    """Of the sum of some outputs: which parameters have one, and that of the first layer's sum."""
    first = first.clone().requires_grad_()
    decoder.zero_grad()
    decoder(first)[..., output].sum().backward()
    moved = {name: value.grad is not None and bool(value.grad.any()) for name, value in decoder.named_parameters()}
    return moved, first.grad


@pytest.mark.parametrize("repeat_input", [False, True], ids=["once", "repeated"])
@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_turns_voxels_into_intensity_and_logits(name, repeat_input):
    decoder = make(name, repeat_input)
    first = torch.randn(2, 5, decoder.width)
    assert decoder(first).shape == (2, 5, 1 + CLASSES)
    torch.testing.assert_close(decoder(first)[1, 3], decoder(first[1, 3]))
    moved, pull = gradients(decoder, first, slice(None))
    assert all(moved.values())
    assert (pull.abs().sum(dim=(0, 1)) > 0).float().mean() > 0.9


def test_an_mlp_is_relu_layers_on_the_first_layers_sum():
    torch.manual_seed(0)
    mlp, first = Mlp(HIDDEN, LAYERS, 2, repeat_input=False), torch.randn(7, HIDDEN)
    value = first.relu()
    for layer in mlp.hidden_layers:
        value = layer(value).relu()
    torch.testing.assert_close(mlp(first), mlp.last(value))
    assert len(mlp.hidden_layers) == LAYERS - 2


def test_a_repeated_input_is_a_concatenation_at_every_hidden_layer():
    torch.manual_seed(0)
    code, read = torch.randn(7, 10), torch.nn.Linear(10, 3 * HIDDEN)
    mlp = Mlp(HIDDEN, LAYERS, 2, repeat_input=True)
    parts = zip(read.weight.split(HIDDEN), read.bias.split(HIDDEN), strict=True)
    (weight, bias), *again = parts
    value = (code @ weight.T + bias).relu()
    for layer, (weight, bias) in zip(mlp.hidden_layers, again, strict=True):
        both, joined = torch.cat([value, code], dim=1), torch.cat([layer.weight, weight], dim=1)
        value = (both @ joined.T + layer.bias + bias).relu()
    torch.testing.assert_close(mlp(read(code)), mlp.last(value))


def test_parameters_differ_only_by_what_is_shared(capsys):
    """Printed with the first layer of a 16-channel map in two views and an 88-channel code, at hidden 64, 8 structures."""
    counts = {}
    for name, make_one in DECODERS.items():
        decoder = make_one(64, 3, 9, False)
        counts[name] = (2 * 16 + 88 + 1) * decoder.width + sum(value.numel() for value in decoder.parameters())
    with capsys.disabled():
        print(f"\ndecoder parameters: {counts}")
    one = 121 * 64 + 64 * 65  # up to the output layer
    assert counts == {
        "shared": one + 65 * 10,
        "two_branch": 2 * one + 65 * 10,
        "two_stage": 2 * one + 65 * 10 + 64,
    }


def test_branches_share_nothing():
    decoder = make("two_branch")
    moved, pull = gradients(decoder, torch.randn(9, decoder.width), slice(0, 1))
    assert all(moved[name] is name.startswith("intensity") for name in moved)
    assert (pull[:, HIDDEN:] == 0).all()
    moved, pull = gradients(decoder, torch.randn(9, decoder.width), slice(1, None))
    assert all(moved[name] is name.startswith("structure") for name in moved)
    assert (pull[:, :HIDDEN] == 0).all()


def test_the_second_stage_reads_the_intensity_and_the_first_reads_nothing_of_it():
    decoder = make("two_stage")
    first = torch.randn(9, decoder.width)
    moved, _ = gradients(decoder, first, slice(0, 1))
    assert all(moved[name] is name.startswith("intensity.") for name in moved)
    moved, _ = gradients(decoder, first, slice(1, None))
    assert all(moved.values())

    intensity = decoder.intensity(first[:, :HIDDEN])
    expected = decoder.structure(first[:, HIDDEN:] + intensity * decoder.from_intensity.weight[:, 0])
    torch.testing.assert_close(decoder(first), torch.cat([intensity, expected], dim=1))


@pytest.mark.parametrize("name", ["two_branch", "two_stage"])
def test_decoders_apart_need_structures(name):
    assert DECODERS["shared"](HIDDEN, LAYERS, 0, False)(torch.zeros(1, HIDDEN)).shape == (1, 1)
    with pytest.raises(UserError, match=rf"decoder '{name}' is to predict no structure; .* Choose decoder 'shared'"):
        DECODERS[name](HIDDEN, LAYERS, 0, False)
