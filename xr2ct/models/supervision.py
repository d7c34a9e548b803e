"""What a trained model is told of a case: windowed intensity, and the labels of the structures chosen for it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from torch import Tensor

from xr2ct.cases import Example, Task
from xr2ct.errors import UserError
from xr2ct.sampling import Lattice, Points
from xr2ct.settings import unknown
from xr2ct.shards import IGNORE

NONE = "none"


@dataclass(frozen=True)
class Supervision:
    """Classes of a model as ids of the task's structures, background first; none at all = intensity only.

    A voxel of a structure that is not among them is background.
    """

    task: Task
    ids: tuple[int, ...]

    @property
    def classes(self) -> int:
        return len(self.ids)

    def classes_of(self, label: UInt8[ndarray, "..."]) -> Int[ndarray, "..."]:
        """The task's labels as classes; IGNORE stays."""
        lookup = np.zeros(256, np.int64)
        lookup[list(self.ids)] = np.arange(self.classes)
        lookup[IGNORE] = IGNORE
        return lookup[label]

    def labels_of(self, classes: UInt8[ndarray, "..."]) -> UInt8[ndarray, "..."]:
        """Classes as the task's labels."""
        return np.array(self.ids, np.uint8)[classes]

    def intensity(self, examples: Sequence[Example], voxels: Lattice | Points) -> Float[Tensor, "case point"]:
        """HU on the task's window mapped to [0, 1]."""
        low, high = self.task.window_hu
        hu = np.stack([voxels.pick(example.case.ct_hu).ravel() for example in examples]).astype(np.float32)
        return torch.from_numpy((hu.clip(low, high) - low) / (high - low))

    def annotated(self, example: Example) -> Bool[ndarray, "class"]:
        """Which classes the case is annotated for; background always counts as one of them."""
        known = example.case.label_status[list(self.ids)] > 0
        known[:1] = True
        return known

    def labels(
        self, examples: Sequence[Example], voxels: Lattice | Points
    ) -> tuple[Int[Tensor, "case point"], Bool[Tensor, "case class"]]:
        """Class per point, and which classes each case is annotated for; a case with no structure is ignored."""
        label = self.classes_of(np.stack([voxels.pick(example.case.label).ravel() for example in examples]))
        annotated = np.stack([self.annotated(example) for example in examples])
        label[~annotated[:, 1:].any(axis=1)] = IGNORE
        return torch.from_numpy(label), torch.from_numpy(annotated)


def choose_structures(task: Task, names: Sequence[str]) -> Supervision:
    """The structures called `names` in the task's order, all if there are no names, nothing for the one name "none"."""
    names = list(names) or list(task.structures[1:])
    if names == [NONE] or not names:
        return Supervision(task, ())
    for name in names:
        if name == NONE:
            raise UserError(f"setting 'structures' is {names}; expected {NONE!r} alone. Take it or the others out.")
        if name not in task.structures[1:]:
            raise unknown("structure", name, [*task.structures[1:], NONE])
    chosen = [number for number, name in enumerate(task.structures) if number and name in names]
    return Supervision(task, (0, *chosen))
