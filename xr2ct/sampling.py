"""Where voxels appear in the X-rays and what the feature maps say there (SPIDER eq. 11-12), for any beam."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

SAME_PIXEL = 1e-3  # px; a step along a lattice axis that moves the shadow less than this is along the ray


@dataclass(frozen=True)
class Lattice:
    """All voxels with indices in z x y x x of a grid of `shape` (z, y, x): a box, a slab or a sparse comb."""

    z: Int[ndarray, "z"]
    y: Int[ndarray, "y"]
    x: Int[ndarray, "x"]
    shape: tuple[int, ...]

    @property
    def axes(self) -> tuple[ndarray, ndarray, ndarray]:
        return self.z, self.y, self.x

    def pick(self, volume: ndarray) -> ndarray:
        """The lattice's voxels of a (z, y, x) volume."""
        return volume[np.ix_(*self.axes)]

    def unit(self) -> tuple[Float[Tensor, "z"], Float[Tensor, "y"], Float[Tensor, "x"]]:
        """Voxel centres as coordinates in (0, 1) of the grid's extent, per axis."""
        z, y, x = (torch.from_numpy((axis + 0.5) / n) for axis, n in zip(self.axes, self.shape, strict=True))
        return z, y, x


def comb(shape: tuple[int, ...], points: int, run: int, random: np.random.Generator) -> Lattice:
    """A random lattice over the whole grid, about `points` voxels per axis in `points / run` runs of `run` neighbours.

    Every step so sees every structure, every voxel is equally likely, and neighbours share the vertices of their code.
    """
    z, y, x = (_comb_axis(n, min(points, n), min(run, points, n), random) for n in shape)
    return Lattice(z, y, x, shape)


def _comb_axis(n: int, points: int, run: int, random: np.random.Generator) -> Int[ndarray, "m"]:
    runs = max(points // run, 1)
    stretch = n / runs
    start = random.random() * n + np.arange(runs) * stretch + random.random(runs) * max(stretch - run, 0)
    return np.unique((np.floor(start).astype(np.int64)[:, None] + np.arange(run)) % n)


def slabs(shape: tuple[int, ...], thickness: int) -> list[Lattice]:
    """The whole grid as lattices of at most `thickness` slices, from foot to head."""
    z, y, x = (np.arange(n) for n in shape)
    return [Lattice(z[start : start + thickness], y, x, shape) for start in range(0, shape[0], thickness)]


def voxel_to_pixel(projection: Float[ndarray, "view 3 4"], affine: Float[ndarray, "4 4"]) -> Float[ndarray, "view 3 4"]:
    """World matrices (mm -> pixel) turned into lattice matrices: index (x, y, z, 1) -> pixel (u, v, 1) * w."""
    return projection @ affine


def pixels_of(matrix: Float[Tensor, "case 3 4"], lattice: Lattice) -> Float[Tensor, "case z y x 2"]:
    """Pixel (u, v) of every lattice voxel, pixel centres at integers (eq. 11).

    An axis that runs along the rays of a parallel beam for all cases has length 1 here: its voxels share a pixel.
    """
    z, y, x = (torch.from_numpy(axis).to(matrix) for axis in lattice.axes)
    reach = matrix[:, :, :3].abs().amax(dim=(0, 1)) * torch.tensor(lattice.shape[::-1]).to(matrix)
    x, y, z = (axis[:1] if still else axis for axis, still in zip((x, y, z), reach < SAME_PIXEL, strict=True))
    along_x, along_y, along_z, at_zero = matrix[:, :, None, None, None, :].unbind(-1)
    homogeneous = along_x * x + along_y * y[:, None] + along_z * z[:, None, None] + at_zero
    return (homogeneous[:, :2] / homogeneous[:, 2:]).movedim(1, -1)


def read_bilinear(
    image: Float[Tensor, "case channel v u"], pixels: Float[Tensor, "case z y x 2"]
) -> Float[Tensor, "case z y x channel"]:
    """Interpolated image values at pixels (u, v), pixel centres at integers, 0 outside the detector (eq. 12)."""
    rows, columns = image.shape[2:]
    half = torch.tensor([max(columns - 1, 1), max(rows - 1, 1)]).to(pixels) / 2
    grid = (pixels / half - 1).to(image.dtype)
    flat = functional.grid_sample(image, grid.flatten(1, 2), mode="bilinear", padding_mode="zeros", align_corners=True)
    return flat.movedim(1, -1).unflatten(1, grid.shape[1:3])
