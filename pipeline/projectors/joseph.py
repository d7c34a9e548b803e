"""Joseph's method: one bilinear sample per plane of the axis that a ray runs along most (Joseph, IEEE TMI 1982, eq. 4).

The fast projector of this package. Against the exact integral of the trilinear volume it is off by about 1e-4 on average
for rays within ten degrees of a grid axis, and by about 1e-3 at 45 degrees.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Float32, Int16, Num
from numpy import ndarray

from pipeline.geometry import View
from pipeline.native import call, has_kernels
from pipeline.projectors.columns import Code, as_columns, column_axis, plain, run_columns, steep
from pipeline.projectors.rays import GridView, Rays, driven_rays, grid_views


def project_joseph(
    mu_per_mm: Num[ndarray, "z y x"], affine: Float[ndarray, "4 4"], views: Sequence[View]
) -> Float32[ndarray, "view v u"]:
    """Line integrals of any beam in any pose. float32 or float16 in Fortran order is read without a copy.

    float16 halves what has to travel from memory, which is what limits an upright detector, at an error below 1e-4.
    """
    columns: dict[int, ndarray] = {}
    seen_views = grid_views(views, affine)
    images = np.empty((len(views), *views[0].shape), np.float32)
    if mu_per_mm.dtype.type != np.float16:
        mu_per_mm = np.asarray(mu_per_mm, np.float32)  # an int16 volume here is no HU
    for seen, image in zip(seen_views, images, strict=True):
        axis = _fast_axis(seen)
        if axis is None:
            image[:] = _any_pose(mu_per_mm, seen)
            continue
        if axis not in columns:
            columns = {axis: as_columns(mu_per_mm, axis)}
        run_columns("joseph_columns", columns[axis], seen, axis, image[None])
    return images


def project_joseph_hu(
    ct_hu: Int16[ndarray, "z y x"],
    affine: Float[ndarray, "4 4"],
    views: Sequence[View],
    code: Code,
    volumes: Sequence[Callable[[], ndarray]],
) -> Float32[ndarray, "view channel v u"]:
    """The same for the channels that `code` derives from HU, all in one pass and without a float volume in memory.

    Where that is not possible (a tilted detector, no kernels), each of `volumes` makes one channel's volume instead.
    """
    seen = grid_views(views, affine)
    images = np.empty((len(views), code.channels, *views[0].shape), np.float32)
    axes = [_fast_axis(one) for one in seen]
    for axis in {axis for axis in axes if axis is not None}:
        columns = as_columns(ct_hu, axis)
        for number, one in enumerate(seen):
            if axes[number] == axis:
                run_columns("joseph_columns", columns, one, axis, images[number], code)
    if None in axes:
        for channel, volume in enumerate(volumes):
            made = volume()
            for number, one in enumerate(seen):
                if axes[number] is None:
                    images[number, channel] = _any_pose(made, one)
    return images


LARGEST_STEP = 100.0
"""Voxels from pixel to pixel beyond which float32 positions along a detector column lose digits that matter."""


def _fast_axis(seen: GridView) -> int | None:
    axis = column_axis(seen) if has_kernels() else None
    if axis is None or steep(seen, axis) or abs(seen.step_v[axis]) > LARGEST_STEP:
        return None
    return axis


class Grid(ctypes.Structure):
    """A float32 volume as kernels/rays.c takes it: sizes and strides along x, y, z."""

    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_int64 * 3), ("stride", ctypes.c_int64 * 3)]

    @classmethod
    def of(cls, volume: Float32[ndarray, "z y x"]) -> Grid:
        """The grid of a volume in any memory order."""
        strides = [stride // volume.itemsize for stride in volume.strides[::-1]]
        return cls(volume.ctypes.data, (ctypes.c_int64 * 3)(*volume.shape[::-1]), (ctypes.c_int64 * 3)(*strides))


def _any_pose(volume: Num[ndarray, "z y x"], seen: GridView) -> Float[ndarray, "v u"]:
    rays = driven_rays(seen)
    volume = plain(np.asarray(volume, np.float32))
    if has_kernels() and min(volume.strides) > 0:
        sums = np.empty(rays.o0.shape, np.float32)
        call("joseph_rays", Grid.of(volume), rays.driving, rays.o0, rays.o1, rays.c0, rays.c1, sums.size, sums)
    else:
        sums = _joseph_numpy(volume, rays)
    return (sums * rays.step_mm).T


def _joseph_numpy(volume: Float32[ndarray, "z y x"], rays: Rays) -> Float[ndarray, "u v"]:
    """What kernels/rays.c does, plane by plane for all rays of one driving axis."""
    sums = np.zeros(rays.driving.shape)
    for axis in range(3):
        chosen = rays.driving == axis
        if not chosen.any():
            continue
        # [plane][o][c], with one plane of zeros around o and c for samples that reach over the border
        turned = volume.transpose([2 - axis, 2 - (axis + 1) % 3, 2 - (axis + 2) % 3])
        size_o, size_c = turned.shape[1:]
        o0, o1, c0, c1 = (array[chosen] for array in (rays.o0, rays.o1, rays.c0, rays.c1))
        total = np.zeros(len(o0))
        for k, plane in enumerate(turned):
            padded = np.pad(plane, 2)
            o, c = np.clip(o0 + o1 * k, -1.5, size_o + 0.5), np.clip(c0 + c1 * k, -1.5, size_c + 0.5)
            i, j = np.floor(o).astype(int), np.floor(c).astype(int)
            f, g, here = o - i, c - j, (i + 2) * (size_c + 4) + j + 2
            flat = padded.ravel()
            low = flat[here] * (1 - f) + flat[here + size_c + 4] * f
            high = flat[here + 1] * (1 - f) + flat[here + size_c + 5] * f
            total += low * (1 - g) + high * g
        sums[chosen] = total
    return sums
