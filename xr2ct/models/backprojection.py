"""No learning: filtered back-projection of the views at hand, FBP for a parallel beam, FDK for a cone.

Geometry comes from the X-rays alone. Kak & Slaney, Principles of Computerized Tomographic Imaging, ch. 3; FDK:
Feldkamp, Davis & Kress 1984. Two views are far fewer than inversion needs: this is what they say without a prior.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from xr2ct.cases import Example, Task
from xr2ct.errors import UserError
from xr2ct.models.model import Prediction, to_hu
from xr2ct.sampling import Lattice, pixels_of, read_bilinear, slabs, voxel_to_pixel
from xr2ct.shards import Xray

SLAB = 16  # slices back-projected at once


@dataclass(frozen=True)
class BackprojectionSettings:
    """Nothing to choose: the beam decides."""


class Backprojection(nn.Module):
    """FBP or FDK of all views, attenuation turned into HU by the shard's `mu_water_per_mm`; predicts no structures."""

    def __init__(self, task: Task, settings: BackprojectionSettings):
        super().__init__()
        self.task = task

    def prepare(self, cases: Iterable[Example]) -> None:
        """Nothing to learn."""

    def predict(self, xray: Xray, affine: Float[ndarray, "4 4"]) -> Prediction:
        if "mu_water_per_mm" not in xray.attrs:
            raise UserError("the X-rays name no mu_water_per_mm; expected it, to get HU. Make the shard again.")
        mu_per_mm = backproject(xray, affine, self.task.shape)
        return Prediction(to_hu(1000 * (mu_per_mm / xray.attrs["mu_water_per_mm"] - 1)), None)


def backproject(xray: Xray, affine: Float[ndarray, "4 4"], shape: tuple[int, ...]) -> Float[ndarray, "z y x"]:
    """Attenuation per mm on the grid of `affine` and `shape` (z, y, x)."""
    axis = rotation_axis(xray)
    weights = angular_weights(central_rays(xray), axis)
    filtered = np.stack([filter_view(xray, view, axis) for view in range(len(weights))])
    image = torch.from_numpy(filtered).float()[:, None]
    matrix = torch.from_numpy(voxel_to_pixel(xray.projection, affine))
    parts = []
    for slab in slabs(shape, SLAB):
        total = np.zeros([len(axis) for axis in slab.axes])
        for view, weight in enumerate(weights):
            read = read_bilinear(image[view, None], pixels_of(matrix[view, None], slab))[0, ..., 0].numpy()
            total += weight * magnification_weight(xray, view, affine, slab) * read
        parts.append(total)
    return np.concatenate(parts)


def central_rays(xray: Xray) -> Float[ndarray, "view 3"]:
    """Unit direction per view: of a parallel beam, or of the cone's ray that is perpendicular to the detector."""
    rays = xray.source_mm[:, :3].copy()
    cone = xray.source_mm[:, 3] != 0
    normal = np.cross(xray.detector_mm[:, 1], xray.detector_mm[:, 2])
    away = np.einsum("vi,vi->v", normal, xray.detector_mm[:, 0] - xray.source_mm[:, :3])
    rays[cone] = (normal * np.sign(away)[:, None])[cone]
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def rotation_axis(xray: Xray) -> Float[ndarray, "3"]:
    """Unit axis most perpendicular to all central rays; for a single direction the detector's v step."""
    _, strength, directions = np.linalg.svd(np.vstack([central_rays(xray), np.zeros((2, 3))]))
    v = xray.detector_mm[0, 1]
    return directions[2] if strength[1] > 1e-6 else v / np.linalg.norm(v)


def angular_weights(rays: Float[ndarray, "view 3"], axis: Float[ndarray, "3"]) -> Float[ndarray, "view"]:
    """Radians each view stands for: half the way to its neighbours modulo 180 degrees; the sum is pi."""
    across = np.linalg.svd(axis[None])[2][1:]
    angle = np.mod(np.arctan2(rays @ across[1], rays @ across[0]), np.pi)
    order = np.argsort(angle)
    gap = np.diff(angle[order], append=angle[order[0]] + np.pi)
    weights = np.empty(len(angle))
    weights[order] = (gap + np.roll(gap, 1)) / 2
    return weights


def filter_view(xray: Xray, view: int, axis: Float[ndarray, "3"]) -> Float[ndarray, "v u"]:
    """Cosine-weighted (cone) and ramp-filtered image, along the detector axis that turns about `axis`; per mm."""
    image, steps = xray.image[view].astype(np.float64), xray.detector_mm[view, 1:]
    if xray.source_mm[view, 3]:
        v, u = np.indices(image.shape)
        ray = xray.detector_mm[view, 0] + v[..., None] * steps[0] + u[..., None] * steps[1] - xray.source_mm[view, :3]
        image = image * (ray @ central_rays(xray)[view]) / np.linalg.norm(ray, axis=-1)
    along = int(np.argmin(np.abs(steps @ axis) / np.linalg.norm(steps, axis=1)))
    return ramp_filter(np.moveaxis(image, along, -1), float(np.linalg.norm(steps[along]))).swapaxes(along, -1)


def ramp_filter(image: Float[ndarray, "row column"], pitch_mm: float) -> Float[ndarray, "row column"]:
    """Convolve rows with the band-limited ramp (Kak & Slaney eq. 3.61), zero-padded so that nothing wraps around."""
    columns = image.shape[-1]
    n = np.arange(-columns + 1, columns)
    kernel = np.where(n % 2, -1.0 / (np.pi * np.where(n == 0, 1, n)) ** 2, 0.0) / pitch_mm**2
    kernel[columns - 1] = 1 / (4 * pitch_mm**2)
    size = 2 ** int(np.ceil(np.log2(3 * columns)))
    filtered = np.fft.irfft(np.fft.rfft(image, size) * np.fft.rfft(kernel, size), size)
    return filtered[:, columns - 1 : 2 * columns - 1] * pitch_mm


def magnification_weight(
    xray: Xray, view: int, affine: Float[ndarray, "4 4"], slab: Lattice
) -> Float[ndarray, "z y x"] | float:
    """FDK's distance weight SOD SDD / depth^2 for a filter in detector pixels; 1 for a parallel beam."""
    if not xray.source_mm[view, 3]:
        return 1.0
    source, ray = xray.source_mm[view, :3], central_rays(xray)[view]
    sod_mm = (isocentre(xray) - source) @ ray
    sdd_mm = (xray.detector_mm[view, 0] - source) @ ray
    step = ray @ affine[:3, :3]
    z, y, x = slab.axes
    depth_mm = (affine[:3, 3] - source) @ ray + step[0] * x + step[1] * y[:, None] + step[2] * z[:, None, None]
    return sod_mm * sdd_mm / depth_mm**2


def isocentre(xray: Xray) -> Float[ndarray, "3"]:
    """The point nearest to all central rays in the least-squares sense (mm): where the gantry turns about."""
    rays = central_rays(xray)
    across = np.eye(3) - rays[:, :, None] * rays[:, None, :]
    target = np.einsum("vij,vj->vi", across, xray.source_mm[:, :3])
    return np.linalg.lstsq(across.reshape(-1, 3), target.reshape(-1), rcond=None)[0]
