"""Parallel beams: sums along the grid's axes where the beam follows one, Joseph for many angles at once elsewhere.

Along an axis the line integral of the interpolated volume is the sum of its slices, exactly. At other angles in the plane
across the detector's columns all slices share their rays, so columns of voxels are added to columns of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Num
from numpy import ndarray
from scipy.ndimage import map_coordinates

from pipeline.errors import UserError
from pipeline.geometry import View
from pipeline.native import call, has_kernels
from pipeline.projectors.columns import column_axis, paths_of, reorder
from pipeline.projectors.joseph import project_joseph
from pipeline.projectors.rays import GridView, grid_views

_BLOCK = 64


def project_parallel(
    mu_per_mm: Num[ndarray, "z y x"], affine: Float[ndarray, "4 4"], views: Sequence[View]
) -> Float32[ndarray, "view v u"]:
    """Line integrals of parallel beams in any pose."""
    volume = np.asarray(mu_per_mm, np.float32)
    seen = grid_views(views, affine)
    for one in seen:
        if not one.parallel:
            raise UserError(f"view {one.view.name}: backend 'parallel' cannot simulate a cone beam. Use 'joseph'.")
    images = np.empty((len(views), *views[0].shape), np.float32)
    left = dict(enumerate(seen))

    axes = {number: axis for number, one in left.items() if (axis := _beam_axis(one)) is not None}
    sums = axis_sums(volume, set(axes.values()))
    for number, axis in axes.items():
        one = left.pop(number)
        np.multiply(_on_detector(sums[axis], one, axis), _step_mm(one, axis), out=images[number], dtype=np.float32)

    for axis in range(3):
        sheets = [number for number, one in left.items() if _sheet_axis(one) == axis]
        if sheets:
            images[sheets] = _sheets(volume, [left.pop(number) for number in sheets], axis)
    for number, one in left.items():
        images[number] = project_joseph(volume, affine, [one.view])[0]
    return images


def _step_mm(seen: GridView, axis: int) -> np.float32:
    return np.float32(math.hypot(*seen.view.source_mm[:3].tolist()) / abs(seen.source[axis]))


def _beam_axis(seen: GridView) -> int | None:
    """The grid axis that the beam follows exactly."""
    along = [axis for axis, part in enumerate(seen.source.tolist()) if part]
    return along[0] if len(along) == 1 else None


def axis_sums(volume: Float32[ndarray, "z y x"], axes: set[int]) -> dict[int, Float32[ndarray, "row column"]]:
    """Sums along the axes asked for (0 x, 1 y, 2 z); along x and y in one pass over the volume."""
    if axes == {0, 1} and has_kernels() and volume.flags.c_contiguous:
        depth, height, width = volume.shape
        along_y, along_x = np.zeros((depth, width), np.float32), np.zeros((depth, height), np.float32)
        call("axis_sums", volume, depth, height, width, along_y, along_x)
        return {0: along_x, 1: along_y}
    return {axis: volume.sum(axis=2 - axis) for axis in axes}


def _on_detector(shadow: Float32[ndarray, "row column"], seen: GridView, axis: int) -> Float32[ndarray, "v u"]:
    """Bilinear look-up of the detector's pixels in a shadow whose rows and columns are the two other grid axes."""
    column, row = (other for other in range(3) if other != axis)
    rows, columns = seen.view.shape
    origin, step_v, step_u = seen.origin.tolist(), seen.step_v.tolist(), seen.step_u.tolist()
    if step_v[column] == 0 and step_u[row] == 0:
        down = _lerp(shadow, origin[row], step_v[row], rows)
        return _lerp(down.T, origin[column], step_u[column], columns).T
    if step_v[row] == 0 and step_u[column] == 0:
        down = _lerp(shadow.T, origin[column], step_v[column], rows)
        return _lerp(down.T, origin[row], step_u[row], columns).T
    pixels = seen.pixels().transpose(1, 0, 2)
    where = [pixels[..., row], pixels[..., column]]
    return map_coordinates(shadow, where, order=1, mode="grid-constant", cval=0.0)


def _lerp(rows: Float32[ndarray, "n m"], start: float, step: float, count: int) -> Float32[ndarray, "{count} m"]:
    """Rows at the positions start + k step; 0 outside, reached linearly over one row."""
    first, pace = round(start), round(step)
    last = first + (count - 1) * pace
    off_rows = abs(start - first) + (count - 1) * abs(step - pace)
    if pace and off_rows < 1e-6 and min(first, last) >= 0 and max(first, last) < len(rows):
        return rows[first::pace][:count]
    at = start + np.arange(count) * step
    padded = np.pad(rows, ((1, 1), (0, 0)))
    at = np.clip(at + 1, 0, len(rows) + 1)
    low = np.minimum(at.astype(np.intp), len(rows))
    part = (at - low).astype(np.float32)[:, None]
    return padded[low] * (1 - part) + padded[low + 1] * part


def _sheet_axis(seen: GridView) -> int | None:
    """The grid axis along the detector's columns, if beam and detector rows stay in the plane across it."""
    axis = column_axis(seen)
    return axis if axis is not None and seen.source[axis] == 0 and seen.step_u[axis] == 0 else None


def _sheets(volume: Float32[ndarray, "z y x"], views: list[GridView], axis: int) -> list[Float32[ndarray, "v u"]]:
    """Joseph, a column of voxels at a time: all views read the volume while a tile of it lies in the cache."""
    order = [2 - other for other in range(3) if other != axis] + [2 - axis]
    length = volume.shape[2 - axis]
    shape = [volume.shape[number] for number in order[:2]]
    padded = -(-length // _BLOCK) * _BLOCK
    if has_kernels() and axis == 2 and volume.flags.c_contiguous:
        columns = reorder(volume, padded)
    else:
        columns = np.zeros((*shape, padded), np.float32)
        columns[..., :length] = volume.transpose(order)
    paths_per_view = [paths_of(seen, axis) for seen in views]
    paths = np.concatenate(paths_per_view)
    sums = np.zeros((len(paths), columns.shape[2]), np.float32)
    if has_kernels():
        driving, o0, o1 = (np.ascontiguousarray(paths[name]) for name in ("driving", "o0", "o1"))
        call("joseph_sheets", columns, *columns.shape, driving.astype(np.int8), o0, o1, len(paths), sums)
    else:
        _sheets_numpy(columns, paths, sums)
    images, begin = [], 0
    for seen, path in zip(views, paths_per_view, strict=True):
        lines = sums[begin : begin + len(path), :length] * np.sqrt(path["s0"]).astype(np.float32)[:, None]
        begin += len(path)
        images.append(_lerp(lines.T, float(seen.origin[axis]), float(seen.step_v[axis]), seen.view.shape[0]))
    return images


def _sheets_numpy(columns: Float32[ndarray, "a b c"], paths: ndarray, sums: Float32[ndarray, "ray c"]) -> None:
    for driving in (0, 1):
        chosen = np.flatnonzero(paths["driving"] == driving)
        across = columns.shape[1 - driving]
        for k in range(columns.shape[driving]):
            plane = np.pad(columns.take(k, axis=driving), ((2, 2), (0, 0)))
            o = np.clip(paths["o0"][chosen] + paths["o1"][chosen] * k, -1.5, across + 0.5)
            i = np.floor(o).astype(int)
            f = (o - i).astype(np.float32)[:, None]
            sums[chosen] += (1 - f) * plane[i + 2] + f * plane[i + 3]
