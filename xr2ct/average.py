"""The running mean of the parameters (EMA): steadier than the last step's, and what is watched and saved."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Mean with weight 1 - decay for the newest parameters; early on decay is (1 + step) / (10 + step), if smaller."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the parameters after step `step` (from 0); equal ones stay equal to the bit."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, value in model.named_parameters():
            self.values[name].lerp_(value, weight)

    def state(self) -> dict[str, Tensor]:
        return self.values

    def load(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.values[name].copy_(value)

    @torch.no_grad()
    def write_to(self, model: nn.Module) -> None:
        for name, value in model.named_parameters():
            value.copy_(self.values[name])


@contextmanager
def shown(model: nn.Module, average: Average | None) -> Iterator[None]:
    """The model in mode eval and with its averaged parameters, if there are any; afterwards as it was."""
    was_training = model.training
    present = {name: value.detach().clone() for name, value in model.named_parameters()} if average else {}
    if average:
        average.write_to(model)
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
        with torch.no_grad():
            for name, value in model.named_parameters() if average else ():
                value.copy_(present[name])
