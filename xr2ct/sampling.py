"""Where voxels appear in the X-rays and what the feature maps say there (SPIDER eq. 11-12), for any beam."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

from xr2ct.encoding import HashGrid

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

    def encode(self, grid: HashGrid) -> Float[Tensor, "z y x channels"]:
        """The code of every voxel's centre."""
        return grid.lattice(*self.unit())

    def open_axes(self) -> tuple[Int[ndarray, "z 1 1"], Int[ndarray, "1 y 1"], Int[ndarray, "1 1 x"]]:
        """Indices that broadcast to the lattice."""
        return np.ix_(*self.axes)


@dataclass(frozen=True)
class Points:
    """Scattered voxels (z, y, x) of a grid of `shape`; as arrays (point, 1, 1), where a lattice gives (z, y, x)."""

    index: Int[ndarray, "n 3"]
    shape: tuple[int, ...]

    def pick(self, volume: ndarray) -> ndarray:
        """The points' voxels of a (z, y, x) volume."""
        return volume[self.open_axes()]

    def unit(self) -> Float[Tensor, "n 3"]:
        """Voxel centres as coordinates (x, y, z) in (0, 1) of the grid's extent."""
        return torch.from_numpy((self.index + 0.5) / self.shape).float().flip(1)

    def encode(self, grid: HashGrid) -> Float[Tensor, "n 1 1 channels"]:
        """The code of every voxel's centre."""
        return grid(self.unit().to(grid.parameters_flat.device))[:, None, None]

    def open_axes(self) -> tuple[Int[ndarray, "n 1 1"], Int[ndarray, "n 1 1"], Int[ndarray, "n 1 1"]]:
        """Indices of all points."""
        z, y, x = self.index.T[..., None, None]
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


def pixels_of(matrix: Float[Tensor, "case 3 4"], voxels: Lattice | Points) -> Float[Tensor, "case z y x 2"]:
    """Pixel (u, v) of every voxel, pixel centres at integers (eq. 11).

    An axis of a lattice that runs along the rays of a parallel beam for all cases has length 1 here: its voxels share a
    pixel.
    """
    z, y, x = (torch.from_numpy(axis).to(matrix) for axis in voxels.open_axes())
    if isinstance(voxels, Lattice):
        reach = matrix[:, :, :3].abs().amax(dim=(0, 1)) * torch.tensor(voxels.shape[::-1]).to(matrix)
        along = zip((x, y, z), (2, 1, 0), (reach < SAME_PIXEL).tolist(), strict=True)
        x, y, z = (axis.narrow(dim, 0, 1) if still else axis for axis, dim, still in along)
    along_x, along_y, along_z, at_zero = matrix[:, :, None, None, None, :].unbind(-1)
    homogeneous = along_x * x + along_y * y + along_z * z + at_zero
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
