"""Everything that changes during a training, as one value that is saved and restored."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from xr2ct.average import Average
from xr2ct.best import Best
from xr2ct.models.model import Trainable
from xr2ct.training_log import TrainingLog


@dataclass
class TrainingState:
    """`step` steps are done; `before` are the seconds of the processes that were stopped."""

    model: Trainable
    optimizer: torch.optim.Optimizer
    average: Average | None
    log: TrainingLog = field(default_factory=TrainingLog)
    best: Best = field(default_factory=Best)
    step: int = 0
    before: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Training time so far, all processes together that took part one after another."""
        return self.before + time.monotonic() - self.began

    def content(self, buffers: Mapping[str, Tensor]) -> dict[str, Any]:
        """What a resume file holds; `buffers` are the model's as they were before the step that is to be done again."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "log": self.log.state(),
            "best": self.best.state(),
            "average": self.average.state() if self.average else {},
            "state": {**self.model.state_dict(), **buffers},
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, content: dict[str, Any]) -> None:
        self.model.load_state_dict(content["state"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.average:
            self.average.load(content["average"])
        self.log, self.best = TrainingLog(**content["log"]), Best(**content["best"])
        self.step, self.before, self.began = content["step"], content["seconds"], time.monotonic()
