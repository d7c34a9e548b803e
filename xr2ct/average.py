"""The running mean of the parameters (EMA): steadier than the last step's, and what is watched and saved.

Buffers of fractions are averaged with them, as torch.optim.swa_utils does for an EMA (`use_buffers=True`): the statistics
of batch normalisation belong to the parameters they were measured with. Buffers that do not change stay equal to the bit;
counters and flags are those of the last step.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def averaged(model: nn.Module) -> dict[str, Tensor]:
    """What is averaged: all parameters, and the buffers that are floating point."""
    buffers = {name: value for name, value in model.named_buffers() if value.is_floating_point()}
    return dict(model.named_parameters()) | buffers


class Average:
    """Mean with weight 1 - decay for the newest values; early on decay is (1 + step) / (10 + step), if smaller."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.values = copies(model)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the values after step `step` (from 0); equal ones stay equal to the bit."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, value in averaged(model).items():
            self.values[name].lerp_(value, weight)

    def state(self) -> dict[str, Tensor]:
        return self.values

    def load(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.values[name].copy_(value)

    def write_to(self, model: nn.Module) -> None:
        overwrite(model, self.values)


@contextmanager
def shown(model: nn.Module, average: Average | None) -> Iterator[None]:
    """The model in mode eval and with its averaged values, if there are any; afterwards as it was."""
    was_training = model.training
    present = copies(model) if average else None
    if average:
        average.write_to(model)
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
        if present is not None:
            overwrite(model, present)


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in averaged(model).items()}


@torch.no_grad()
def overwrite(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, value in averaged(model).items():
        value.copy_(values[name])
