"""The readable reference: the exact line integral, in float64, of the trilinearly interpolated volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Num
from numpy import ndarray
from scipy.ndimage import map_coordinates

from pipeline.geometry import View
from pipeline.projectors.rays import GridView, grid_views

_CROSSINGS_AT_ONCE = 2_000_000
_GAUSS = 0.5 / np.sqrt(3.0)


def project_reference(
    mu_per_mm: Num[ndarray, "z y x"], affine: Float[ndarray, "4 4"], views: Sequence[View]
) -> Float64[ndarray, "view v u"]:
    """Line integrals of any beam. Between two planes of voxel centres the volume is a cubic along the ray, so Gauss's two
    points integrate it exactly.

    Beyond the outermost voxel centres the volume falls linearly to 0 over one voxel, so nothing of its mass is lost.
    """
    padded = np.pad(np.asarray(mu_per_mm, np.float64), 1)
    return np.stack([_project(padded, seen) for seen in grid_views(views, affine)])


def _project(padded: Float64[ndarray, "z y x"], seen: GridView) -> Float64[ndarray, "v u"]:
    pixels = seen.pixels().reshape(-1, 3)
    direction, path_mm = seen.directions(pixels), seen.path_mm().ravel()
    size = np.array(padded.shape[::-1])
    image = np.zeros(len(pixels))
    at_once = max(1, _CROSSINGS_AT_ONCE // int(size.sum()))
    for begin in range(0, len(pixels), at_once):
        rays = slice(begin, begin + at_once)
        start, along = pixels[rays, None] + 1.0, direction[rays, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            crossings = [(np.arange(size[axis]) - start[..., axis]) / along[..., axis] for axis in range(3)]
        at = np.concatenate(crossings, axis=1)
        at = np.sort(np.where(np.isfinite(at), at, -1e9), axis=1)
        middle, length = 0.5 * (at[:, 1:] + at[:, :-1]), np.diff(at, axis=1)
        total = np.zeros(len(at))
        for side in (-_GAUSS, _GAUSS):
            xyz = start + (middle + side * length)[..., None] * along
            values = map_coordinates(padded, xyz[..., ::-1].reshape(-1, 3).T, order=1, mode="constant", cval=0.0)
            total += 0.5 * (values.reshape(length.shape) * length).sum(axis=1)
        image[rays] = total * path_mm[rays]
    return image.reshape(seen.view.shape[::-1]).T
