"""How a model descends its loss: the settings every trained model shares, and the learning rate they mean."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from xr2ct.errors import UserError
from xr2ct.settings import unknown


@dataclass(frozen=True)
class TrainingSettings:
    """One epoch is one pass over the training cases; `steps` counts, unless `epochs` is above 0."""

    steps: int = 800
    epochs: int = 0
    batch: int = 2  # cases per step, of all processes together
    optimizer: str = "adamw"
    learning_rate: float = 5e-3
    table_rate: float = 1.0  # learning rate of the hash table, as a multiple
    momentum: float = 0.9  # of sgd
    weight_decay: float = 0.0  # on everything but the hash table
    clip: float = 0.0  # largest gradient norm; 0 = none
    schedule: str = "cosine"
    halve_epochs: int = 100  # of the schedule "halving"
    final_rate: float = 0.001  # of the schedule "exponential": last rate as a share of the first
    freeze: tuple[str, ...] = ()  # parts of the model that keep their values
    ema: float = 0.0  # decay of the running mean (of parameters and batch statistics) watched and saved; 0 = none
    patience: int = 0  # watch rounds without a better PSNR before the training ends with the best state; 0 = no end
    log_steps: int = 50
    watch_steps: int = 200
    watch_cases: int = 4  # of every --watch shard
    save_minutes: float = 2.0

    def __post_init__(self) -> None:
        """UserError that names the first setting outside its range, or the unknown name of a choice."""
        for name, (holds, expected) in SENSIBLE.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and holds(value)):
                raise UserError(f"setting {name!r} is {value!r}; expected {expected}. Correct it in the settings.")
        for kind, value, valid in (("optimizer", self.optimizer, OPTIMIZERS), ("schedule", self.schedule, SCHEDULES)):
            if value not in valid:
                raise unknown(kind, value, valid)


SENSIBLE: dict[str, tuple[Callable[[float], bool], str]] = {
    **dict.fromkeys(("steps", "batch", "halve_epochs", "log_steps", "watch_steps"), (lambda x: x >= 1, "1 or more")),
    **dict.fromkeys(("epochs", "watch_cases", "patience"), (lambda x: x >= 0, "0 or more")),
    **dict.fromkeys(("table_rate", "weight_decay", "clip", "save_minutes"), (lambda x: x >= 0, "0 or more")),
    "learning_rate": (lambda x: x > 0, "a number above 0"),
    "final_rate": (lambda x: 0 < x <= 1, "a share above 0 and up to 1"),
    **dict.fromkeys(("momentum", "ema"), (lambda x: 0 <= x < 1, "0 or more and below 1")),
}


HASH_GRID = {"betas": (0.9, 0.99), "eps": 1e-15}
"""Of Adam, as Instant NGP has them: rows that are seldom read have small gradients."""


def adam(groups: list[dict], settings: TrainingSettings) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=settings.learning_rate, fused=True, **HASH_GRID)


def adamw(groups: list[dict], settings: TrainingSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True, **HASH_GRID)


def sgd(groups: list[dict], settings: TrainingSettings) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, fused=True)


def cosine(step: int, steps: int, epoch: float, settings: TrainingSettings) -> float:
    """1 falling to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def halving(step: int, steps: int, epoch: float, settings: TrainingSettings) -> float:
    """Halved every `halve_epochs` epochs (SPIDER IV-B)."""
    return 0.5 ** (epoch // settings.halve_epochs)


def exponential(step: int, steps: int, epoch: float, settings: TrainingSettings) -> float:
    """1 falling by an equal factor per step, to `final_rate` at the end (DIF-Net's recipe)."""
    return settings.final_rate ** (step / steps)


OPTIMIZERS: dict[str, Callable[[list[dict], TrainingSettings], torch.optim.Optimizer]] = {
    "adamw": adamw,
    "adam": adam,
    "sgd": sgd,
}
SCHEDULES: dict[str, Callable[[int, int, float, TrainingSettings], float]] = {
    "cosine": cosine,
    "halving": halving,
    "exponential": exponential,
}


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimiser of what is not frozen; a hash table (a flat parameter named so) is kept from weight decay."""
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    tables = [value for name, value in trained.items() if name.endswith("parameters_flat")]
    others = [value for name, value in trained.items() if not name.endswith("parameters_flat")]
    groups = [
        {"params": others, "weight_decay": settings.weight_decay, "rate": 1.0},
        {"params": tables, "weight_decay": 0.0, "rate": settings.table_rate},
    ]
    return OPTIMIZERS[settings.optimizer]([group for group in groups if group["params"]], settings)


def steps_per_epoch(n_cases: int, settings: TrainingSettings) -> float:
    return n_cases / settings.batch


def total_steps(n_cases: int, settings: TrainingSettings) -> int:
    if settings.epochs:
        return -(-settings.epochs * n_cases // settings.batch)
    return settings.steps


def learning_rate(step: int, n_cases: int, settings: TrainingSettings) -> float:
    """The rate of step `step` (from 0): a pure function, so that a resumed run needs no scheduler state."""
    epoch = step / steps_per_epoch(n_cases, settings)
    return settings.learning_rate * SCHEDULES[settings.schedule](step, total_steps(n_cases, settings), epoch, settings)
