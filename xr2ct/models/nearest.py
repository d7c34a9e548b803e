"""The second floor: answer with the training case whose X-rays look most alike."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from xr2ct.cases import Example, Task
from xr2ct.errors import UserError
from xr2ct.losses import IGNORE
from xr2ct.models.model import Prediction, to_hu
from xr2ct.shards import Xray


@dataclass(frozen=True)
class NearestSettings:
    """Nothing to choose."""


class Nearest(nn.Module):
    """All training cases; the answer has the least mean squared difference of line integrals over all views' pixels.

    The first of equals. Its checkpoint holds every training volume: 6 MiB per case of 128^3.
    """

    def __init__(self, task: Task, settings: NearestSettings):
        super().__init__()
        self.task = task
        self.register_buffer("image", torch.zeros((0, len(task.views), 0, 0)))
        self.register_buffer("ct_hu", torch.zeros((0, *task.shape), dtype=torch.int16))
        self.register_buffer("label", torch.zeros((0, *task.shape), dtype=torch.uint8))

    def prepare(self, cases: Iterable[Example]) -> None:
        """Keep the X-rays, the windowed HU and the labels; voxels that nobody may judge become background."""
        images, volumes, labels = [], [], []
        for example in cases:
            image, case = example.xray.image, example.case
            if images:
                require_same_detector(image.shape, images[0].shape, f"training case {case.id}")
            images.append(torch.from_numpy(image.astype(np.float32)))
            volumes.append(torch.from_numpy(to_hu(case.ct_hu.clip(*self.task.window_hu))))
            labels.append(torch.from_numpy(np.where(case.label == IGNORE, 0, case.label).astype(np.uint8)))
        self.image, self.ct_hu, self.label = torch.stack(images), torch.stack(volumes), torch.stack(labels)

    def predict(self, xray: Xray, affine: Float[ndarray, "4 4"]) -> Prediction:
        """Windowed HU and labels (z, y, x) of the nearest training case, whatever its world position."""
        nearest = int(np.argmin(self.distances(xray)))
        return Prediction(self.ct_hu[nearest].cpu().numpy().copy(), self.label[nearest].cpu().numpy().copy())

    def distances(self, xray: Xray) -> Float[ndarray, "case"]:
        """Mean squared difference of line integrals (dimensionless) from every training case."""
        require_same_detector(xray.image.shape, tuple(self.image.shape[1:]), "these X-rays")
        asked = xray.image.astype(np.float64)
        return np.array([np.mean(np.square(known.cpu().numpy() - asked)) for known in self.image])

    def load_state_dict(self, state: Mapping[str, torch.Tensor], *arguments: Any, **options: Any) -> Any:
        """Buffers take the size of the training set that made `state`."""
        for name in ("image", "ct_hu", "label"):
            if name in state:
                setattr(self, name, torch.empty_like(state[name]))
        return super().load_state_dict(state, *arguments, **options)


def require_same_detector(found: tuple[int, ...], expected: tuple[int, ...], what: str) -> None:
    if found != expected:
        raise UserError(
            f"{what}: images (view, v, u) are {found}; expected {expected} as in training. "
            "Model nearest compares pixel by pixel: use shards made by one configuration."
        )
