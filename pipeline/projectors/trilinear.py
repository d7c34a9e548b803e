"""The readable reference: march every ray through the trilinearly interpolated volume."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.ndimage import map_coordinates

from pipeline.geometry import View

STEP_VOXELS = 0.5
_SAMPLES_AT_ONCE = 2_000_000


def project_trilinear(
    mu_per_mm: Float[ndarray, "z y x"], affine: Float[ndarray, "4 4"], view: View
) -> Float[ndarray, "v u"]:
    """Line integrals of any beam: midpoint rule with half-voxel steps, attenuation 0 outside the grid.

    Beyond the outermost voxel centres the volume falls linearly to 0 over one voxel, so nothing of its mass is lost.
    """
    padded = np.pad(mu_per_mm, 1)
    to_index = np.linalg.inv(affine)
    pixel_mm, along_mm = (array.reshape(-1, 3) for array in view.rays())
    start = pixel_mm @ to_index[:3, :3].T + to_index[:3, 3] + 1.0
    step = along_mm @ to_index[:3, :3].T * (STEP_VOXELS * np.linalg.norm(affine[:3, :3], axis=0).min())
    step_mm = STEP_VOXELS * np.linalg.norm(affine[:3, :3], axis=0).min()

    first, last = _inside(start, step, np.array(padded.shape[::-1]) - 1.0)
    count = np.maximum(np.ceil(last - first), 0).astype(int)
    line_integral = np.zeros(len(start))
    rays_at_once = max(1, _SAMPLES_AT_ONCE // max(1, count.max()))
    for begin in range(0, len(start), rays_at_once):
        rays = slice(begin, begin + rays_at_once)
        number = np.arange(count[rays].max())
        parameter = first[rays, None] + number + 0.5
        xyz = start[rays, None] + parameter[..., None] * step[rays, None]
        values = map_coordinates(padded, xyz[..., ::-1].reshape(-1, 3).T, order=1, mode="constant", cval=0.0)
        line_integral[rays] = values.reshape(parameter.shape).sum(axis=1) * step_mm
    return line_integral.reshape(view.shape)


def _inside(
    start: Float[ndarray, "ray 3"], step: Float[ndarray, "ray 3"], upper: Float[ndarray, "3"]
) -> tuple[Float[ndarray, "ray"], Float[ndarray, "ray"]]:
    """Ray parameters (in steps) where each ray enters and leaves the box [0, upper]; equal where it misses it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = np.stack([(0.0 - start) / step, (upper - start) / step])
    bounds = np.where(np.isnan(bounds), np.array([-np.inf, np.inf])[:, None, None], bounds)
    first, last = bounds.min(axis=0).max(axis=1), bounds.max(axis=0).min(axis=1)
    missed = ~(last > first)
    return np.where(missed, 0.0, first), np.where(missed, 0.0, last)
