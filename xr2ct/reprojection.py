"""Project a reconstruction through the matrices of its X-rays and say how far it is from what they show."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int16
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

from xr2ct.views import is_parallel

STEP = 0.5  # voxels between two samples of a ray
RAYS_AT_ONCE = 8192
WATER_PER_MM = 0.02  # about 60 keV; only where the X-rays name no mu_water_per_mm, and then a factor is fitted


@dataclass(frozen=True)
class Fit:
    """How a re-projection compares: root mean square of the difference over the input's SD, Pearson's correlation, and
    the shift (u, v) in pixels by which the re-projection has to move to fit best."""

    relative_rms: float
    correlation: float
    shift_px: tuple[float, float]


def to_attenuation(ct_hu: Int16[ndarray, "z y x"], water_per_mm: float) -> Float[Tensor, "z y x"]:
    """mu per mm by linear-clip-v1: mu_water * max(0, 1 + HU / 1000)."""
    return (1 + torch.from_numpy(ct_hu).float() / 1000).clamp_min(0) * water_per_mm


def project_volume(
    volume: Float[Tensor, "z y x"],
    affine: Float[ndarray, "4 4"],
    projection: Float[ndarray, "3 4"],
    size: tuple[int, int],
) -> Float[Tensor, "v u"]:
    """Line integrals of the trilinearly interpolated volume, which falls to 0 within a voxel beyond its last centres."""
    v, u = np.indices(size, dtype=np.float64)
    start, along = index_rays(projection @ affine, np.stack([u.ravel(), v.ravel()]))
    length = np.linalg.norm(affine[:3, :3] @ along, axis=0)
    near, far = _crossing(start, along, volume.shape)
    count = int(np.ceil((np.linalg.norm(along, axis=0) * (far - near)).max() / STEP)) or 1
    middle = (np.arange(count) + 0.5) / count
    half = torch.tensor([max(n - 1, 1) / 2 for n in volume.shape[::-1]])
    total = torch.zeros(start.shape[1])
    for rays in _pieces(start.shape[1]):
        at = near[rays, None] + (far - near)[rays, None] * middle
        points = torch.from_numpy((start[:, rays, None] + along[:, rays, None] * at).astype(np.float32)).movedim(0, -1)
        grid = points / half - 1
        values = functional.grid_sample(volume[None, None], grid[None, None], align_corners=True)
        total[rays] = values[0, 0, 0].sum(dim=-1)
    step_mm = torch.from_numpy((length * (far - near) / count).astype(np.float32))
    return (total * step_mm).reshape(size)


def index_rays(
    matrix: Float[ndarray, "3 4"], pixels: Float[ndarray, "2 ray"]
) -> tuple[Float[ndarray, "3 ray"], Float[ndarray, "3 ray"]]:
    """Start and direction in index (x, y, z) of the rays of pixels (u, v), `matrix` mapping index to pixel."""
    if is_parallel(matrix):
        across = matrix[:2] / matrix[2, 3]
        start = np.linalg.pinv(across[:, :3]) @ (pixels - across[:, 3:])
        along = np.cross(across[1, :3], across[0, :3])
        return start, np.repeat((along / np.linalg.norm(along))[:, None], pixels.shape[1], axis=1)
    inverse = np.linalg.inv(matrix[:, :3])
    along = inverse @ np.vstack([pixels, np.ones(pixels.shape[1])])
    return np.repeat(-inverse @ matrix[:, 3:], pixels.shape[1], axis=1), along


def _crossing(
    start: Float[ndarray, "3 ray"], along: Float[ndarray, "3 ray"], shape: tuple[int, ...]
) -> tuple[Float[ndarray, "ray"], Float[ndarray, "ray"]]:
    """Where each ray enters and leaves the grid and one voxel around it; the same number twice where it misses."""
    last = np.array(shape[::-1], np.float64)[:, None]
    safe = np.where(np.abs(along) < 1e-12, 1e-12, along)
    ends = np.sort(np.stack([(-1 - start) / safe, (last - start) / safe]), axis=0)
    near, far = ends[0].max(axis=0), ends[1].min(axis=0)
    return near, np.maximum(near, far)


def _pieces(count: int) -> Iterator[slice]:
    for begin in range(0, count, RAYS_AT_ONCE):
        yield slice(begin, begin + RAYS_AT_ONCE)


def compare(
    again: Float[ndarray, "v u"], image: Float[ndarray, "v u"], seen: Bool[ndarray, "v u"], *, fitted: bool
) -> Fit:
    """A re-projection against its input where that is `seen`; `fitted` allows a factor and an offset, for images
    without a scale."""
    one, other = again[seen], image[seen]
    correlation = float(np.corrcoef(one, other)[0, 1]) if one.std() > 0 and other.std() > 0 else 0.0
    if fitted and one.std() > 0:
        again = (again - one.mean()) * (correlation * other.std() / one.std()) + other.mean()
    error = float(np.sqrt(((again - image)[seen] ** 2).mean()) / max(other.std(), 1e-12))
    return Fit(error, correlation, best_shift(again, image, seen))


def best_shift(
    moving: Float[ndarray, "v u"], fixed: Float[ndarray, "v u"], seen: Bool[ndarray, "v u"]
) -> tuple[float, float]:
    """(u, v) pixels that `moving` has to go for the least mean square difference where both are seen, to a fraction of a
    pixel by a parabola; at most a quarter of the image."""
    size = [2 * n for n in fixed.shape]
    a, aa, b, bb, mask = (
        np.fft.rfft2(image * seen, size) for image in (moving, moving**2, fixed, fixed**2, np.ones(fixed.shape))
    )
    square = np.fft.irfft2(aa.conj() * mask + mask.conj() * bb - 2 * a.conj() * b, size)
    shared = np.fft.irfft2(mask.conj() * mask, size)
    reach = [n // 4 for n in fixed.shape]
    square, shared = (
        np.roll(total, reach, axis=(0, 1))[: 2 * reach[0] + 1, : 2 * reach[1] + 1] for total in (square, shared)
    )
    likeness = -square / np.maximum(shared, 1.0)
    v, u = np.unravel_index(likeness.argmax(), likeness.shape)
    return _peak(likeness[v], int(u)) - reach[1], _peak(likeness[:, u], int(v)) - reach[0]


def _peak(line: Float[ndarray, "n"], at: int) -> float:
    """Position of the maximum between samples."""
    if not 0 < at < len(line) - 1:
        return float(at)
    left, top, right = line[at - 1 : at + 2]
    curve = left - 2 * top + right
    return float(at + (0.5 * (left - right) / curve if curve < 0 else 0.0))
