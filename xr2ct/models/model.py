"""What every model is: parameters and buffers that a checkpoint holds, filled in one pass and maybe trained."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int16, UInt8
from numpy import ndarray
from torch import nn

from xr2ct.cases import Example, Task
from xr2ct.shards import Xray


@dataclass(frozen=True)
class Prediction:
    """A reconstruction on the case's grid; `label` indexes the task's structures, None if the model predicts none."""

    ct_hu: Int16[ndarray, "z y x"]
    label: UInt8[ndarray, "z y x"] | None


@runtime_checkable
class Model(Protocol):
    """An nn.Module with these methods. A model whose settings are TrainingSettings also has `loss` (see Trainable)."""

    def prepare(self, cases: Iterable[Example]) -> None:
        """Learn what one pass over the training set tells, into buffers."""

    def predict(self, xray: Xray, affine: Float[ndarray, "4 4"]) -> Prediction:
        """Reconstruct from the X-rays alone; `affine` (index (x, y, z, 1) -> RAS mm) places the grid."""

    def state_dict(self) -> Mapping[str, torch.Tensor]: ...
    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> Any: ...
    def to(self, device: torch.device) -> "Model": ...


@runtime_checkable
class Trainable(Model, Protocol):
    """A model that descends a loss."""

    def loss(self, examples: Sequence[Example], random: np.random.Generator) -> dict[str, torch.Tensor]:
        """Loss parts of one step, "loss" is what is minimised; all randomness comes from `random`."""

    def begin_from(self, state: Mapping[str, torch.Tensor]) -> None:
        """After `prepare`: take what a trained model of this network knows, and keep what only the new cases tell."""

    def parts(self) -> dict[str, list[nn.Module]]:
        """What the setting `freeze` can name, and the modules that each name stands for."""


@runtime_checkable
class Factory(Protocol):
    """Builds an untrained model for a task."""

    def __call__(self, task: Task, settings: Any) -> Model: ...


def known_structures(model: Model, task: Task) -> Sequence[str]:
    """The structures that the model can predict: all of the task, unless it says otherwise."""
    return getattr(model, "known_structures", task.structures)


def to_hu(ct_hu: Float[ndarray, "z y x"]) -> Int16[ndarray, "z y x"]:
    """Round to the HU range that a shard stores."""
    return np.clip(np.rint(ct_hu), -1024, 3071).astype(np.int16)
