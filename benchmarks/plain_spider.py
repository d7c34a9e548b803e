"""SPIDER as section III of the paper reads, line by line in plain PyTorch: what xr2ct's training step and reconstruction
are measured against.

Features are read at every voxel of every case, the position of every voxel of every case is encoded level by level and corner
by corner, both are concatenated, one MLP runs over all of them; NCHW, float32, torch's own Adam.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from xr2ct.cases import Example
from xr2ct.encoding import reference
from xr2ct.models.model import Prediction, to_hu
from xr2ct.models.spider import Spider
from xr2ct.sampling import Lattice
from xr2ct.shards import Xray

EPSILON = 1e-5


class PlainSpider(nn.Module):
    """The network of `model` (decoder shared, no head, all structures annotated) with copies of its parameters."""

    def __init__(self, model: Spider):
        super().__init__()
        self.settings, self.task = model.settings, model.task
        self.down, self.up = (
            copy.deepcopy(part).to(memory_format=torch.contiguous_format) for part in (model.unet.down, model.unet.up)
        )
        self.levels = model.position.levels
        self.table = nn.Parameter(model.position.table().detach().clone())
        self.mlp = mlp_of(model)
        for name in ("image_mean", "image_scale", "class_weight", "hu_weight"):
            self.register_buffer(name, getattr(model, name).clone())

    def loss(self, examples: Sequence[Example], lattice: Lattice) -> Tensor:
        """The objective (eq. 24-26 and the cross-entropy) at the lattice's voxels of every case."""
        z, y, x = (axis.ravel() for axis in np.meshgrid(*lattice.axes, indexing="ij"))
        features = self.features(np.stack([example.xray.image for example in examples]))
        codes = [
            self.code_of(example.xray, example.case.affine, maps, x, y, z)
            for example, maps in zip(examples, features, strict=True)
        ]
        out = self.mlp(torch.cat(codes))
        ct_hu, label = (
            torch.cat([self.given(getattr(example.case, name)[z, y, x]).to(kind) for example in examples])
            for name, kind in (("ct_hu", torch.float32), ("label", torch.int64))
        )
        low, high = self.task.window_hu
        true, settings = (ct_hu.clamp(low, high) - low) / (high - low), self.settings
        weight = self.hu_weight[(true * len(self.hu_weight)).long().clamp(max=len(self.hu_weight) - 1)]
        return (
            settings.intensity_weight * (weight * (out[:, 0] - true).abs()).sum() / weight.sum()
            + settings.dice_weight * dice_loss(out[:, 1:], label)
            + settings.entropy_weight * functional.cross_entropy(out[:, 1:], label, weight=self.class_weight)
        )

    @torch.inference_mode()
    def predict(self, xray: Xray, affine: Float[np.ndarray, "4 4"]) -> Prediction:
        """HU and the most probable class of every voxel of the grid, slice by slice."""
        (features,), (low, high) = self.features(xray.image[None]), self.task.window_hu
        z_size, y_size, x_size = self.task.shape
        y, x = (axis.ravel() for axis in np.mgrid[:y_size, :x_size])
        ct_hu, label = np.empty(self.task.shape, np.float32), np.empty(self.task.shape, np.uint8)
        for z in range(z_size):
            out = self.mlp(self.code_of(xray, affine, features, x, y, np.full_like(x, z)))
            ct_hu[z] = (out[:, 0].clamp(0, 1) * (high - low) + low).unflatten(0, (y_size, x_size)).cpu()
            label[z] = out[:, 1:].argmax(dim=1).unflatten(0, (y_size, x_size)).cpu()
        return Prediction(to_hu(ct_hu), label)

    def features(self, image: Float[np.ndarray, "case view v u"]) -> Float[Tensor, "case view channel v u"]:
        normal = (self.given(image) - self.image_mean[:, None, None]) / self.image_scale[:, None, None]
        return self.encode_images(normal.flatten(0, 1)[:, None]).unflatten(0, image.shape[:2])

    def given(self, array: np.ndarray) -> Tensor:
        """The array where the network is."""
        return torch.from_numpy(array).to(self.image_mean.device)

    def code_of(
        self,
        xray: Xray,
        affine: Float[np.ndarray, "4 4"],
        features: Float[Tensor, "view channel v u"],
        x: Int[np.ndarray, "n"],
        y: Int[np.ndarray, "n"],
        z: Int[np.ndarray, "n"],
    ) -> Float[Tensor, "n channels"]:
        """Concat(view features, position) at the voxels (x, y, z) of one case (eq. 11-18)."""
        size, (rows, columns) = np.array(self.task.shape[::-1]), features.shape[2:]
        unit = self.given(((np.stack([x, y, z], axis=1) + 0.5) / size).astype(np.float32))
        world = affine @ np.stack([x, y, z, np.ones_like(x)])
        parts = []
        for image, projection in zip(features, xray.projection, strict=True):
            u, v, w = projection @ world
            grid = np.stack([2 * u / w / (columns - 1) - 1, 2 * v / w / (rows - 1) - 1], axis=1).astype(np.float32)
            place = self.given(grid)[None, None]
            read = functional.grid_sample(image[None], place, padding_mode="zeros", align_corners=True)
            parts.append(read[0, :, 0].T)
        return torch.cat([*parts, reference.encode_points(self.table, self.levels, unit)], dim=1)

    def encode_images(self, image: Float[Tensor, "view 1 v u"]) -> Float[Tensor, "view channel v u"]:
        level, skips = self.down[0](image), []
        for block in self.down[1:]:
            skips.append(level)
            level = block(functional.max_pool2d(level, 2, ceil_mode=True))
        for block, skip in zip(self.up, reversed(skips), strict=True):
            wide = functional.interpolate(level, size=skip.shape[2:], mode="bilinear", align_corners=False)
            level = block(torch.cat([skip, wide], dim=1))
        return level


def mlp_of(model: Spider) -> nn.Sequential:
    """The decoder, whose first layer reads Concat(view features, position) (eq. 18)."""
    parts = [*(first.weight for first in model.first_view), model.first_position.weight]
    first = nn.Linear(sum(part.shape[1] for part in parts), parts[0].shape[0])
    with torch.no_grad():
        first.weight.copy_(torch.cat(parts, dim=1))
        first.bias.copy_(model.first_position.bias)
    layers: list[nn.Module] = [first]
    for layer in (*model.decoder.both.hidden_layers, model.decoder.both.last):
        layers += [nn.ReLU(inplace=True), copy.deepcopy(layer)]
    return nn.Sequential(*layers)


def dice_loss(logits: Float[Tensor, "n class"], label: Int[Tensor, "n"]) -> Float[Tensor, ""]:
    """Mean of 1 - Dice over the structures that the labels hold."""
    probability, target = logits.softmax(dim=1), functional.one_hot(label, logits.shape[1]).float()
    overlap, total = (probability * target).sum(dim=0), (probability + target).sum(dim=0)
    present = target.sum(dim=0) > 0
    present[0] = False
    return (1 - (2 * overlap + EPSILON) / (total + EPSILON))[present].mean()
