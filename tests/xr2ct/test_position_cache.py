"""Kept tensors are given back only while the parameters they came from have not changed, by whatever way."""

import pytest
import torch
from torch import nn

from xr2ct.models.position_cache import PositionCache


def asked(cache, key=0, value=1.0, numbers=4):
    """The tensor and whether it was computed now."""
    calls = []
    found = cache.get(key, lambda: calls.append(1) or torch.full((numbers,), value))
    return found, bool(calls)


def begin(cache, *parameters, cases=2):
    """So many cases: from the second on tensors are kept."""
    for _ in range(cases):
        cache.hold(parameters)


def test_what_the_second_case_computes_is_kept():
    cache, parameter = PositionCache(), nn.Parameter(torch.ones(3))
    for computes in (True, True, False):
        begin(cache, parameter, cases=1)
        found, computed = asked(cache)
        assert computed is computes
        assert found.tolist() == [1.0] * 4
    assert asked(cache, key=1)[1]


def test_one_case_takes_no_memory():
    cache = PositionCache()
    begin(cache, torch.ones(3), cases=1)
    asked(cache)
    assert not cache.kept and not cache.bytes


@pytest.mark.parametrize(
    "change",
    [
        lambda parameter: parameter.data.add_(1),
        lambda parameter: parameter.data.mul_(-1),
        lambda parameter: setattr(parameter, "data", torch.zeros(3)),
        lambda parameter: torch.optim.AdamW([parameter], lr=0.1, fused=True).step(),
    ],
    ids=["data", "sign", "exchange", "optimiser"],
)
def test_changed_parameters_drop_everything(change):
    cache, parameter = PositionCache(), nn.Parameter(torch.ones(3))
    begin(cache, parameter)
    asked(cache)
    parameter.grad = torch.ones(3)
    change(parameter)
    begin(cache, parameter)
    assert asked(cache)[1]


def test_every_parameter_is_compared_not_only_the_first():
    cache, parameters = PositionCache(), [nn.Parameter(torch.ones(3)) for _ in range(3)]
    for changed in parameters:
        begin(cache, *parameters)
        asked(cache)
        changed.data.neg_()
        begin(cache, *parameters)
        assert asked(cache)[1]


def test_memory_is_bounded():
    cache = PositionCache(most_bytes=40)
    begin(cache, torch.ones(1))
    for _ in range(2):
        assert [asked(cache, key)[0].numel() for key in range(3)] == [4, 4, 4]
    assert [asked(cache, key)[1] for key in range(3)] == [False, False, True]
    assert cache.bytes == 32
