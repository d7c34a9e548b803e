"""The honest floor: whatever the X-rays show, answer with the training set's mean."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from xr2ct.cases import Example, Task
from xr2ct.losses import IGNORE
from xr2ct.models.model import Prediction, to_hu
from xr2ct.shards import Xray


@dataclass(frozen=True)
class MeanSettings:
    """Nothing to choose."""


class Mean(nn.Module):
    """Mean of the windowed HU volume and, per voxel, the most frequent class among the cases annotated for it."""

    def __init__(self, task: Task, settings: MeanSettings):
        super().__init__()
        self.task = task
        self.register_buffer("ct_hu", torch.zeros(task.shape, dtype=torch.int16))
        self.register_buffer("label", torch.zeros(task.shape, dtype=torch.uint8))

    def prepare(self, cases: Iterable[Example]) -> None:
        """Take mean HU and most frequent label of every voxel index (z, y, x), whatever its world position."""
        classes = len(self.task.structures)
        total = np.zeros(self.task.shape)
        votes = np.zeros((classes, *self.task.shape), np.uint16)
        annotated, count = np.zeros(classes), 0
        for example in cases:
            count += 1
            total += example.case.ct_hu.clip(*self.task.window_hu)
            annotated += example.case.label_status > 0
            for value in np.setdiff1d(example.case.label, [IGNORE]):
                votes[value] += example.case.label == value
        self.ct_hu.copy_(torch.from_numpy(to_hu(total / count)))
        frequency = (vote / max(number, 1) for vote, number in zip(votes, annotated, strict=True))
        best, label = np.zeros(self.task.shape), np.zeros(self.task.shape, np.uint8)
        for value, share in enumerate(frequency):
            label[share > best] = value
            best = np.maximum(best, share)
        self.label.copy_(torch.from_numpy(label))

    def predict(self, xray: Xray, affine: Float[ndarray, "4 4"]) -> Prediction:
        """The same HU and labels (z, y, x) for all X-rays."""
        return Prediction(self.ct_hu.cpu().numpy().copy(), self.label.cpu().numpy().copy())
