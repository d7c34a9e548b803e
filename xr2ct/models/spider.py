"""SPIDER: a 2-D UNet on the X-rays, a hash-encoded position and one shared MLP for intensity and structures.

Method: section III of the paper. Its decoder reads Concat(f_pa, f_lat, h) (eq. 18); the first layer is linear, so here
each part has a matrix of its own and the parts are added: the position is encoded once for all cases of a batch, and a
view whose rays run along a grid axis is read once per ray and broadcast.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from xr2ct.cases import Example, Task
from xr2ct.drawing import DRAWS
from xr2ct.encoding import HashGrid, make_levels
from xr2ct.errors import UserError
from xr2ct.models.decoders import DECODERS
from xr2ct.models.model import Prediction, to_hu
from xr2ct.models.objective import Intensities, Structures, objective
from xr2ct.models.position_cache import PositionCache
from xr2ct.models.spider_settings import PRECISIONS, SpiderSettings
from xr2ct.models.supervision import choose_structures
from xr2ct.moved_grid import randomly_moved
from xr2ct.sampling import Lattice, Points, pixels_of, read_bilinear, slabs, voxel_to_pixel
from xr2ct.shards import Xray
from xr2ct.unet import UNet

SLAB = 2  # slices reconstructed at once; of 128 x 128 voxels 16 MiB, which the C library reuses as it would not do from 32 on
INTENSITY_BINS = 25  # of the window, that the error is balanced over
CHUNK = 2**18  # numbers per case and layer that the decoder takes at once: what stays in a processor's cache is faster


class Spider(nn.Module):
    """X-rays and voxels -> 1 intensity, and the logits of background and structures, per voxel (eq. 19)."""

    def __init__(self, task: Task, settings: SpiderSettings):
        super().__init__()
        self.task, self.settings = task, settings
        if settings.grid_shift >= min(task.shape):
            raise UserError(
                f"setting 'grid_shift' is {settings.grid_shift}; expected less than the {min(task.shape)} voxels of the "
                "grid's shortest side. Set grid_shift to 0 for so thin a grid."
            )
        self.supervision = choose_structures(task, settings.structures)
        views, classes = len(task.views), self.supervision.classes
        levels = make_levels(
            settings.levels, settings.coarsest, settings.finest or max(task.shape), settings.log2_entries
        )
        self.unet = UNet(settings.widths, settings.convolutions, settings.norm, settings.head)
        self.unet.to(memory_format=torch.channels_last)
        self.position = HashGrid(levels, settings.level_features, settings.backend)
        self.decoder = DECODERS[settings.decoder](settings.hidden, settings.layers, classes, settings.repeat_input)
        self.first_position = nn.Linear(settings.levels * settings.level_features, self.decoder.width)
        self.first_view = nn.ModuleList(
            nn.Linear(self.unet.channels, self.decoder.width, bias=False) for _ in range(views)
        )
        self.register_buffer("image_mean", torch.zeros(views))
        self.register_buffer("image_scale", torch.ones(views))
        self.register_buffer("class_weight", torch.ones(classes))
        self.register_buffer("hu_weight", torch.ones(INTENSITY_BINS))
        self.register_buffer("annotated", torch.ones(classes, dtype=torch.bool))
        self.cache = PositionCache()

    def parts(self) -> dict[str, list[nn.Module]]:
        """What can be trained or frozen apart: the UNet, the MLP from its first layer on, the hash grid."""
        decoder = [self.first_position, self.first_view, self.decoder]
        return {"encoder": [self.unet], "decoder": decoder, "position": [self.position]}

    def prepare(self, cases: Iterable[Example]) -> None:
        """X-ray mean and scale per view; cross-entropy weights 1 / sqrt(class frequency), of mean 1 over voxels; weights
        of the intensity's error by the frequency of its HU.

        A structure that no case is annotated for is learned by nobody, so it is never predicted.
        """
        moments, count = np.zeros((2, len(self.task.views))), 0
        intensities = np.zeros(INTENSITY_BINS)
        voxels, looked_at = np.zeros((2, self.supervision.classes))
        for example in cases:
            count += 1
            image = example.xray.image.astype(np.float64)
            moments += image.mean(axis=(1, 2)), (image**2).mean(axis=(1, 2))
            hu = example.case.ct_hu.clip(*self.task.window_hu)
            intensities += np.histogram(hu, INTENSITY_BINS, self.task.window_hu)[0]
            known = self.supervision.annotated(example)
            if known[1:].any():
                label = self.supervision.classes_of(example.case.label)
                voxels += np.bincount(label.ravel(), minlength=256)[: len(voxels)] * known
                looked_at += label.size * known
        mean, square = moments / count
        self.image_mean.copy_(torch.from_numpy(mean))
        self.image_scale.copy_(torch.from_numpy(np.sqrt(np.maximum(square - mean**2, 1e-12))))
        self.annotated.copy_(torch.from_numpy(looked_at > 0))
        self.annotated[:1] = True
        self.class_weight.copy_(torch.from_numpy(balancing_weights(voxels / np.maximum(looked_at, 1), 0.5)))
        share = intensities / intensities.sum()
        self.hu_weight.copy_(torch.from_numpy(balancing_weights(share, self.settings.intensity_balance)))

    @torch.no_grad()
    def begin_from(self, state: Mapping[str, Tensor]) -> None:
        """Parameters and the X-rays' mean and scale of a trained network; the weights of classes and HU stay those of the
        new cases, and what either knows can be predicted."""
        class_weight, hu_weight, annotated = (
            value.clone() for value in (self.class_weight, self.hu_weight, self.annotated)
        )
        self.load_state_dict(state)
        self.class_weight.copy_(class_weight)
        self.hu_weight.copy_(hu_weight)
        self.annotated |= annotated

    @property
    def known_structures(self) -> list[str]:
        """The structures that it can predict: those it is to learn, and some training case is annotated for."""
        known = self.annotated.cpu().numpy()
        return [self.task.structures[number] for number in np.array(self.supervision.ids, int)[known]]

    def fast(self) -> torch.autocast:
        """Matrix products and convolutions in the precision of the settings."""
        dtype = PRECISIONS[self.settings.precision]
        return torch.autocast(self.image_mean.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)

    def features(self, image: Float[Tensor, "case view v u"]) -> Float[Tensor, "case view channel v u"]:
        """The shared encoder on every view (eq. 10)."""
        normal = (image - self.image_mean[:, None, None]) / self.image_scale[:, None, None]
        with self.fast():
            maps = self.unet(normal.flatten(0, 1)[:, None])
        return maps.float().unflatten(0, image.shape[:2])

    def position_part(self, voxels: Lattice | Points) -> Float[Tensor, "1 z y x width"]:
        """The position's part of the first layer: the same for all patients."""
        code = voxels.encode(self.position)
        with self.fast():
            return self.first_position(code)[None]

    def decode(
        self,
        features: Float[Tensor, "case view channel v u"],
        matrix: Float[Tensor, "case view 3 4"],
        voxels: Lattice | Points,
        position: Float[Tensor, "1 z y x width"] | None = None,
    ) -> Float[Tensor, "case z y x out"]:
        """Sampling module and decoder (eq. 11-12, 17-19); `matrix` maps index (x, y, z, 1) to pixels."""
        parts = [self.position_part(voxels) if position is None else position]
        z, y, x = parts[0].shape[1:4]
        for view, first in enumerate(self.first_view):
            read = read_bilinear(features[:, view], pixels_of(matrix[:, view], voxels))
            with self.fast():
                parts.append(first(read))
        rows = max(1, CHUNK // (x * self.decoder.width))  # of voxels along x
        slices = max(1, rows // y)
        with self.fast():
            out = [
                torch.cat([self.decoder(total(part)) for part in pieces(thick, 2, y, rows)], dim=2)
                for thick in pieces(parts, 1, z, slices)
            ]
        return torch.cat(out, dim=1).float()

    def loss(self, examples: Sequence[Example], random: np.random.Generator) -> dict[str, Tensor]:
        """L1 on the window mapped to [0, 1], Dice and cross-entropy (eq. 24-26) on random voxels of the grid."""
        self.cache.drop()
        device, s = self.image_mean.device, self.settings
        if s.grid_shift:
            examples = randomly_moved(examples, s.grid_shift, random)
        draw = DRAWS[s.sampling](self.task.shape, s, [example.case.label for example in examples], random)
        image = torch.from_numpy(np.stack([example.xray.image for example in examples])).to(device)
        matrix = np.stack([voxel_to_pixel(example.xray.projection, example.case.affine) for example in examples])
        features, matrix = self.features(image), torch.from_numpy(matrix).to(device)
        out = torch.cat([self.decode(features, matrix, voxels).flatten(1, 3) for voxels in draw], dim=1)
        target = torch.cat([self.supervision.intensity(examples, voxels) for voxels in draw], dim=1).to(device)

        intensity = Intensities(out[..., 0], target, self.weight_of(target))
        if not self.supervision.classes:
            return objective(s, intensity)
        labels, annotated = zip(*(self.supervision.labels(examples, voxels) for voxels in draw), strict=True)
        label, known = torch.cat(labels, dim=1).to(device), annotated[0].to(device)
        return objective(s, intensity, Structures(out[..., 1:], label, known, self.class_weight))

    def weight_of(self, target: Float[Tensor, "case point"]) -> Float[Tensor, "case point"]:
        """What the error at a point of this true intensity counts."""
        return self.hu_weight[(target * INTENSITY_BINS).long().clamp(max=INTENSITY_BINS - 1)]

    @torch.inference_mode()
    def predict(self, xray: Xray, affine: Float[ndarray, "4 4"]) -> Prediction:
        """Intensity mapped back to the HU window, and the most probable class (eq. 23), slab by slab."""
        device = self.image_mean.device
        with evaluating(self):
            features = self.features(torch.from_numpy(xray.image)[None].to(device))
        matrix = torch.from_numpy(voxel_to_pixel(xray.projection, affine))[None].to(device)
        low, high = self.task.window_hu
        self.cache.hold([self.position.parameters_flat, *self.first_position.parameters()])
        ct_hu, classes, labelled = [], [], bool(self.annotated[1:].any())
        for slab in slabs(self.task.shape, SLAB):
            position = self.cache.get((slab.z[0], len(slab.z)), lambda: self.position_part(slab))  # noqa: B023
            out = self.decode(features, matrix, slab, position)[0]
            ct_hu.append((out[..., 0].clamp(0, 1) * (high - low) + low).cpu().numpy())
            if labelled:
                classes.append(
                    out[..., 1:].masked_fill(~self.annotated, -torch.inf).argmax(dim=-1).to(torch.uint8).cpu().numpy()
                )
        label = self.supervision.labels_of(np.concatenate(classes)) if classes else None
        return Prediction(to_hu(np.concatenate(ct_hu)), label)


def balancing_weights(frequency: Float[ndarray, "class"], power: float) -> Float[ndarray, "class"]:
    """1 / frequency ** power, of mean 1 over voxels; 1 for a class that is not there."""
    there = frequency > 0
    weight = np.where(there, frequency, 1) ** -power
    scale = frequency.sum() / (weight * frequency).sum() if there.any() else 1
    return np.where(there, weight * scale, 1.0)


def pieces(parts: Sequence[Tensor], axis: int, length: int, size: int) -> Iterator[tuple[Tensor, ...]]:
    """All parts cut along an axis that those of length 1 have in common with the others."""
    shape = [-1] * 5
    shape[axis] = length
    return zip(*(part.expand(shape).split(size, dim=axis) for part in parts), strict=True)


def total(parts: Sequence[Tensor]) -> Tensor:
    """The sum of the position's part and those of the views; the first two together have all voxels and all cases."""
    position, first, *others = parts
    whole = position + first
    for part in others:
        whole += part
    return whole


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """All modules in mode eval; afterwards each as it was, also where a frozen one differed from the rest."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
