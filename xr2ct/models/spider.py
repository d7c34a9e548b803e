"""SPIDER: a 2-D UNet on the X-rays, a hash-encoded position and one shared MLP for intensity and structures.

Method: section III of the paper. Its decoder reads Concat(f_pa, f_lat, h) (eq. 18); the first layer is linear, so here
each part has a matrix of its own and the parts are added: the position is encoded once for all cases of a batch, and a
view whose rays run along a grid axis is read once per ray and broadcast.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor, nn

from xr2ct import losses
from xr2ct.cases import Example, Task
from xr2ct.encoding import HashGrid, make_levels
from xr2ct.models.model import Prediction, to_hu
from xr2ct.sampling import Lattice, comb, pixels_of, read_bilinear, slabs, voxel_to_pixel
from xr2ct.settings import unknown
from xr2ct.shards import Xray
from xr2ct.training_settings import TrainingSettings
from xr2ct.unet import UNet

SLAB = 4  # slices reconstructed at once
CHUNK = 8192  # voxels per case that the decoder takes at once: what stays in a processor's cache is twice as fast


@dataclass(frozen=True)
class SpiderSettings(TrainingSettings):
    """The network and its objective; the training settings on top."""

    widths: tuple[int, ...] = (16, 32, 64, 128, 256)  # of the UNet, one per resolution
    convolutions: int = 2  # per UNet block
    hidden: int = 64  # width of the decoder
    layers: int = 3  # of the decoder, the output layer included
    levels: int = 11
    level_features: int = 8
    coarsest: int = 16  # grid points per side of the first level
    finest: int = 0  # of the last level; 0 = the longest side of the voxel grid
    log2_entries: int = 17  # table rows per level
    points: int = 32  # voxels per axis and step ...
    run: int = 4  # ... in runs of so many neighbours
    intensity_weight: float = 1.0
    dice_weight: float = 0.3
    entropy_weight: float = 0.3  # class-weighted cross-entropy, without which Dice does not start
    dice: str = "class"


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "optimizer": "sgd",
        "momentum": 0.0,
        "learning_rate": 1e-3,
        "schedule": "halving",
        "epochs": 500,
        "batch": 4,
        "entropy_weight": 0.0,
        "dice": "micro",
        "log2_entries": 19,
    },
    "large": {"widths": (32, 64, 128, 256), "hidden": 128, "log2_entries": 19},
}

DICE = {
    "micro": lambda overlap, total, present: losses.micro_dice_loss(overlap, total),
    "class": losses.class_dice_loss,
}


class Spider(nn.Module):
    """X-rays and a lattice of voxels -> 1 intensity, background and K structure logits per voxel (eq. 19)."""

    def __init__(self, task: Task, settings: SpiderSettings):
        super().__init__()
        if settings.dice not in DICE:
            raise unknown("dice", settings.dice, DICE)
        self.task, self.settings = task, settings
        views, classes = len(task.views), len(task.structures)
        levels = make_levels(
            settings.levels, settings.coarsest, settings.finest or max(task.shape), settings.log2_entries
        )
        self.unet = UNet(settings.widths, settings.convolutions).to(memory_format=torch.channels_last)
        self.position = HashGrid(levels, settings.level_features)
        self.first_position = nn.Linear(settings.levels * settings.level_features, settings.hidden)
        self.first_view = nn.ModuleList(
            nn.Linear(settings.widths[0], settings.hidden, bias=False) for _ in range(views)
        )
        hidden = [nn.ReLU(inplace=True)]
        for _ in range(settings.layers - 2):
            hidden += [nn.Linear(settings.hidden, settings.hidden), nn.ReLU(inplace=True)]
        self.rest = nn.Sequential(*hidden, nn.Linear(settings.hidden, 1 + classes))
        self.register_buffer("image_mean", torch.zeros(views))
        self.register_buffer("image_scale", torch.ones(views))
        self.register_buffer("class_weight", torch.ones(classes))

    def prepare(self, cases: Iterable[Example]) -> None:
        """X-ray mean and scale per view; cross-entropy weights 1 / sqrt(class frequency), of mean 1 over voxels."""
        moments = np.zeros((2, len(self.task.views)))
        voxels, count = np.zeros(len(self.task.structures)), 0
        for example in cases:
            count += 1
            image = example.xray.image.astype(np.float64)
            moments += image.mean(axis=(1, 2)), (image**2).mean(axis=(1, 2))
            voxels += np.bincount(example.case.label.ravel(), minlength=256)[: len(voxels)]
        mean, square = moments / count
        self.image_mean.copy_(torch.from_numpy(mean))
        self.image_scale.copy_(torch.from_numpy(np.sqrt(np.maximum(square - mean**2, 1e-12))))
        weight = 1 / np.sqrt(np.maximum(voxels, 1))
        self.class_weight.copy_(torch.from_numpy(weight * voxels.sum() / (weight * voxels).sum().clip(min=1e-12)))

    def features(self, image: Float[Tensor, "case view v u"]) -> Float[Tensor, "case view channel v u"]:
        """The shared encoder on every view (eq. 10)."""
        normal = (image - self.image_mean[:, None, None]) / self.image_scale[:, None, None]
        return self.unet(normal.flatten(0, 1)[:, None]).unflatten(0, image.shape[:2])

    def decode(
        self,
        features: Float[Tensor, "case view channel v u"],
        matrix: Float[Tensor, "case view 3 4"],
        lattice: Lattice,
    ) -> Float[Tensor, "case z y x out"]:
        """Sampling module and decoder (eq. 11-12, 17-19); `matrix` maps index (x, y, z, 1) to pixels."""
        parts = [self.first_position(self.position.lattice(*lattice.unit()))[None]]
        for view, first in enumerate(self.first_view):
            parts.append(first(read_bilinear(features[:, view], pixels_of(matrix[:, view], lattice))))
        slices = max(1, CHUNK // (len(lattice.y) * len(lattice.x)))
        split = [part.expand(-1, len(lattice.z), -1, -1, -1).split(slices, dim=1) for part in parts]
        return torch.cat([self.rest(reduce(torch.add, chunk)) for chunk in zip(*split, strict=True)], dim=1)

    def loss(self, examples: Sequence[Example], random: np.random.Generator) -> dict[str, Tensor]:
        """L1 on the window mapped to [0, 1], Dice and cross-entropy (eq. 24-26) on a random comb of the grid."""
        device = self.image_mean.device
        lattice = comb(self.task.shape, self.settings.points, self.settings.run, random)
        image = torch.from_numpy(np.stack([example.xray.image for example in examples])).to(device)
        matrix = np.stack([voxel_to_pixel(example.xray.projection, example.case.affine) for example in examples])
        out = self.decode(self.features(image), torch.from_numpy(matrix).to(device), lattice).flatten(1, 3)
        intensity, label, annotated = (item.to(device) for item in self.targets(examples, lattice))

        log_probability = losses.annotated_log_probabilities(out[..., 1:], annotated)
        overlap, total = losses.dice_sums(log_probability, label, annotated)
        present = torch.bincount(label[label != losses.IGNORE], minlength=len(overlap)) > 0
        s = self.settings
        parts = {
            "intensity": (out[..., 0] - intensity).abs().mean(),
            "dice": DICE[s.dice](overlap, total, present),
            "entropy": losses.cross_entropy(log_probability, label, annotated, self.class_weight),
        }
        weights = {"intensity": s.intensity_weight, "dice": s.dice_weight, "entropy": s.entropy_weight}
        return {"loss": sum(weights[name] * part for name, part in parts.items())} | parts

    def targets(
        self, examples: Sequence[Example], lattice: Lattice
    ) -> tuple[Float[Tensor, "case point"], Int[Tensor, "case point"], Bool[Tensor, "case class"]]:
        """Windowed intensity, label, and which classes each case is annotated for; a case with none is ignored."""
        low, high = self.task.window_hu
        intensity = np.stack([lattice.pick(example.case.ct_hu).ravel() for example in examples]).astype(np.float32)
        label = np.stack([lattice.pick(example.case.label).ravel() for example in examples]).astype(np.int64)
        annotated = np.stack([example.case.label_status > 0 for example in examples])
        label[~annotated[:, 1:].any(axis=1)] = losses.IGNORE
        annotated[:, 0] = True
        unit = (intensity.clip(low, high) - low) / (high - low)
        return torch.from_numpy(unit), torch.from_numpy(label), torch.from_numpy(annotated)

    @torch.inference_mode()
    def predict(self, xray: Xray, affine: Float[ndarray, "4 4"]) -> Prediction:
        """Intensity mapped back to the HU window, and the most probable class (eq. 23), slab by slab."""
        device = self.image_mean.device
        features = self.features(torch.from_numpy(xray.image)[None].to(device))
        matrix = torch.from_numpy(voxel_to_pixel(xray.projection, affine))[None].to(device)
        low, high = self.task.window_hu
        ct_hu, label = [], []
        for slab in slabs(self.task.shape, SLAB):
            out = self.decode(features, matrix, slab)[0]
            ct_hu.append((out[..., 0].clamp(0, 1) * (high - low) + low).cpu().numpy())
            label.append(out[..., 1:].argmax(dim=-1).to(torch.uint8).cpu().numpy())
        structures = np.concatenate(label) if len(self.task.structures) > 1 else None
        return Prediction(to_hu(np.concatenate(ct_hu)), structures)
