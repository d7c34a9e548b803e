"""Detectors whose columns run along a grid axis, as on every untilted gantry: the fast case of Joseph and Siddon.

Such a volume is worked on as [a][b][c] with c contiguous and parallel to the detector's columns; for (z, y, x) arrays and
an upright detector that is the Fortran order. All rays of a detector column share their path in the (a, b) plane.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Num
from numpy import ndarray

from pipeline.native import call
from pipeline.projectors.rays import GridView


class _Volume(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("a", "b", "c", "stride_a", "stride_b")),
        ("kind", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("code", ctypes.c_float * 8),
    ]


_PATH = np.dtype(
    [
        ("driving", np.int64),
        *((name, np.float64) for name in ("o0", "o1", "c00", "c01", "c10", "c11", "s0", "s1", "s2")),
    ]
)


_KINDS = {np.float32: 0, np.float16: 1, np.int16: 2}


@dataclass(frozen=True)
class Code:
    """How a kernel turns HU into one density, or into `channels` = 3 of them (air, soft tissue, bone), as it reads.

    density = max(0, min(slope_low HU + offset_low, slope_high HU + offset_high)), times the share of each material.
    """

    channels: int
    slope_low: float
    offset_low: float
    slope_high: float
    offset_high: float
    air_until: float = 0.0
    air_width: float = 1.0
    bone_from: float = 0.0
    bone_width: float = 1.0


def column_axis(seen: GridView) -> int | None:
    """The grid axis (0 x, 1 y, 2 z) that the detector's columns follow, or None where there is none."""
    axis = int(np.argmax(np.abs(seen.step_v)))
    a, b = _others(axis)
    if seen.step_v[a] or seen.step_v[b]:
        return None
    _, direction = seen.first_row
    first, last = direction[0], direction[-1]
    # Between its ends the row of pixels must not pass over or under the tube.
    return axis if max(first[a] * last[a], first[b] * last[b]) > 0 else None


def _others(axis: int) -> tuple[int, int]:
    return tuple(other for other in range(3) if other != axis)


def steep(seen: GridView, axis: int) -> bool:
    """Whether some ray runs more along the columns than across them, where Joseph would drive along the columns."""
    _, direction = seen.first_row
    reach = 0.0 if seen.parallel else (seen.view.shape[0] - 1) * seen.step_v[axis]
    length = np.abs(direction)
    along = np.maximum(length[:, axis], np.abs(direction[:, axis] + reach))
    a, b = _others(axis)
    return bool((along > np.maximum(length[:, a], length[:, b])).any())


def as_columns(volume: Num[ndarray, "z y x"], axis: int) -> Num[ndarray, "a b c"]:
    """The volume with `axis` (0 x, 1 y, 2 z) last and contiguous: a view of it where its memory allows, else one copy."""
    order = [2 - other for other in (*_others(axis), axis)]
    volume = plain(volume)
    turned = volume.transpose(order)
    if turned.strides[2] == volume.itemsize and min(turned.strides) > 0:
        return turned
    if order != [2, 1, 0] or not volume.flags.c_contiguous or volume.dtype == np.float16:
        return np.ascontiguousarray(turned)
    return reorder(volume, volume.shape[0])


def plain(volume: Num[ndarray, "z y x"]) -> Num[ndarray, "z y x"]:
    """The volume as a kernel can read it: native float32, float16 or int16, whole voxels from one to the next."""
    whole = all(stride % volume.itemsize == 0 for stride in volume.strides)
    if volume.dtype.type in _KINDS and volume.dtype.isnative and whole:
        return volume
    return volume.astype(volume.dtype.type if volume.dtype.type in _KINDS else np.float32)


def reorder(volume: Num[ndarray, "z y x"], length: int) -> Num[ndarray, "x y {length}"]:
    """The volume as columns along z, each padded with zeros to `length`; starts at a cache line."""
    _, height, width = volume.shape
    make = np.empty if length == len(volume) else np.zeros
    room = make(width * height * length * volume.itemsize + 64, np.uint8)
    begin = -room.ctypes.data % 64
    columns = room[begin : len(room) - 64 + begin].view(volume.dtype).reshape(width, height, length)
    call("reorder_float" if volume.dtype == np.float32 else "reorder_int16", volume, *volume.shape, length, columns)
    return columns


def paths_of(seen: GridView, axis: int) -> ndarray:
    """Per detector column the numbers of its path, named as in kernels/columns.h."""
    a, b = _others(axis)
    pixel, direction = seen.first_row
    along_b = np.abs(direction[:, b]) > np.abs(direction[:, a])
    pace, slope_o = _sorted(along_b, direction[:, a], direction[:, b])
    pixel_d, pixel_o = _sorted(along_b, pixel[:, a], pixel[:, b])
    paths = np.zeros(len(pixel), _PATH)
    paths["driving"] = along_b
    slope_o, slope_c = slope_o / pace, direction[:, axis] / pace
    paths["o1"], paths["o0"] = slope_o, pixel_o - slope_o * pixel_d
    paths["c01"], paths["c00"] = slope_c, pixel[:, axis] - slope_c * pixel_d
    if seen.parallel:
        paths["c10"] = seen.step_v[axis]
    else:  # towards the tube the rays of a column draw together
        paths["c11"] = seen.step_v[axis] / pace
        paths["c10"] = -np.where(along_b, seen.source[b], seen.source[a]) * paths["c11"]
    for name, coefficient in zip(("s0", "s1", "s2"), seen.path_mm_squared(), strict=True):
        paths[name] = coefficient / pace**2
    return paths


def _sorted(along_b: Bool[ndarray, "u"], a: Float[ndarray, "u"], b: Float[ndarray, "u"]) -> tuple[ndarray, ndarray]:
    """What belongs to the driving axis of each ray, and what to the other one."""
    return np.where(along_b, b, a), np.where(along_b, a, b)


def run_columns(
    kernel: str,
    columns: Num[ndarray, "a b c"],
    seen: GridView,
    axis: int,
    image: Float32[ndarray, "channel v u"],
    code: Code | None = None,
) -> None:
    """Write line integrals in mm times the volume's unit into `image`, by kernel `joseph_columns` or `siddon_columns`."""
    channels = code.channels if code else 1
    numbers = [0.0] * 8
    if code:
        numbers = [code.slope_low, code.offset_low, code.slope_high, code.offset_high]
        numbers += [code.air_until, 1 / code.air_width, code.bone_from, 1 / code.bone_width]
    item = columns.itemsize
    volume = _Volume(
        columns.ctypes.data,
        *columns.shape,
        columns.strides[0] // item,
        columns.strides[1] // item,
        _KINDS[columns.dtype.type],
        channels,
        (ctypes.c_float * 8)(*numbers),
    )
    rows, width = seen.view.shape
    call(kernel, volume, paths_of(seen, axis), width, rows, image)
