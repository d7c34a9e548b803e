"""How a model descends its loss: the settings every trained model shares, and the learning rate they mean."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from xr2ct.settings import unknown


@dataclass(frozen=True)
class TrainingSettings:
    """One epoch is one pass over the training cases; `steps` counts, unless `epochs` is above 0."""

    steps: int = 800
    epochs: int = 0
    batch: int = 2  # cases per step
    optimizer: str = "adamw"
    learning_rate: float = 5e-3
    table_rate: float = 1.0  # learning rate of the hash table, as a multiple
    momentum: float = 0.9  # of sgd
    weight_decay: float = 0.0  # on everything but the hash table
    clip: float = 0.0  # largest gradient norm; 0 = none
    schedule: str = "cosine"
    halve_epochs: int = 100  # of the schedule "halving"
    log_steps: int = 50
    watch_steps: int = 200
    watch_cases: int = 4  # of every --watch shard
    save_minutes: float = 2.0


def adamw(groups: list[dict], settings: TrainingSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.99), eps=1e-15, fused=True)


def sgd(groups: list[dict], settings: TrainingSettings) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, fused=True)


def cosine(step: int, steps: int, epoch: float, settings: TrainingSettings) -> float:
    """1 falling to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def halving(step: int, steps: int, epoch: float, settings: TrainingSettings) -> float:
    """Halved every `halve_epochs` epochs (SPIDER IV-B)."""
    return 0.5 ** (epoch // settings.halve_epochs)


OPTIMIZERS: dict[str, Callable[[list[dict], TrainingSettings], torch.optim.Optimizer]] = {"adamw": adamw, "sgd": sgd}
SCHEDULES: dict[str, Callable[[int, int, float, TrainingSettings], float]] = {"cosine": cosine, "halving": halving}


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimiser of all parameters; a hash table (a flat parameter named so) is kept from weight decay."""
    if settings.optimizer not in OPTIMIZERS:
        raise unknown("optimizer", settings.optimizer, OPTIMIZERS)
    tables = [value for name, value in model.named_parameters() if name.endswith("parameters_flat")]
    others = [value for name, value in model.named_parameters() if not name.endswith("parameters_flat")]
    groups = [
        {"params": others, "weight_decay": settings.weight_decay, "rate": 1.0},
        {"params": tables, "weight_decay": 0.0, "rate": settings.table_rate},
    ]
    return OPTIMIZERS[settings.optimizer]([group for group in groups if group["params"]], settings)


def steps_per_epoch(n_cases: int, settings: TrainingSettings) -> float:
    return n_cases / settings.batch


def total_steps(n_cases: int, settings: TrainingSettings) -> int:
    if settings.epochs:
        return math.ceil(settings.epochs * steps_per_epoch(n_cases, settings))
    return settings.steps


def learning_rate(step: int, n_cases: int, settings: TrainingSettings) -> float:
    """The rate of step `step` (from 0): a pure function, so that a resumed run needs no scheduler state."""
    if settings.schedule not in SCHEDULES:
        raise unknown("schedule", settings.schedule, SCHEDULES)
    epoch = step / steps_per_epoch(n_cases, settings)
    return settings.learning_rate * SCHEDULES[settings.schedule](step, total_steps(n_cases, settings), epoch, settings)
