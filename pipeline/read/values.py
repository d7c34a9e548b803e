"""Stored numbers -> HU or label ids, without a silent wrap-around."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int16, Shaped
from numpy import ndarray

from pipeline.errors import CaseError
from pipeline.read.stream import Stream

PADDING_HU = -1024
_NONFINITE_SHARE = 1e-3
_INT16 = np.iinfo(np.int16)
_SLAB = 8
_BLOCK_BYTES = 16 << 20

Hu = Int16[ndarray, "i j k"] | Float32[ndarray, "i j k"]


@dataclass(frozen=True)
class Stored:
    """Voxels of a file: HU or ids = array * slope + intercept; `flags` is what its header made one notice."""

    array: Shaped[ndarray, "i j k"]
    slope: float
    intercept: float
    affine: Float64[ndarray, "4 4"]
    flags: frozenset[str] = frozenset()


def check_dtype(dtype: np.dtype) -> None:
    """Refuse what is not one real number per voxel."""
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise CaseError("E_DTYPE", f"the voxels are of type {dtype.name}, expected integers or real numbers")


def read_stored(
    stream: Stream,
    dtype: np.dtype,
    shape: tuple[int, ...],
    affine: Float64[ndarray, "4 4"],
    *,
    slope: float = 1.0,
    intercept: float = 0.0,
    flags: frozenset[str] = frozenset(),
) -> Stored:
    """The voxels that follow in a stream, first axis fastest.

    What can only become float32 is scaled and becomes it block by block: a large CT in float64 does not fit beside its
    float32 copy. int16 values and label ids of 64 bits pass through float32 unchanged.
    """
    count = math.prod(shape)
    if _kept(dtype, slope, intercept):
        array = stream.take_payload(count * dtype.itemsize).view(dtype)
        return Stored(array.reshape(shape, order="F"), slope, intercept, affine, flags)
    array, filled = np.empty(count, np.float32), 0
    for block in stream.take_blocks(count * dtype.itemsize, _BLOCK_BYTES):
        values = block.view(dtype)
        array[filled : filled + len(values)] = _scaled(values, slope, intercept)
        filled += len(values)
    return Stored(array.reshape(shape, order="F"), 1.0, 0.0, affine, flags)


def _kept(dtype: np.dtype, slope: float, intercept: float) -> bool:
    """Whether voxels stay as the file has them: float32 in HU, and integers up to 32 bits under an integer scaling."""
    if dtype.kind == "f":
        return (dtype, slope, intercept) == (np.float32, 1, 0)
    return dtype.itemsize <= 4 and float(slope).is_integer() and float(intercept).is_integer()


def _scaled(values: ndarray, slope: float, intercept: float) -> ndarray:
    """In float64; what is too large for float32 becomes infinite there."""
    with np.errstate(over="ignore", invalid="ignore"):
        return (values.astype(np.float64) * slope + intercept).astype(np.float32)


def to_hu(stored: Stored) -> tuple[Hu, bool]:
    """HU, int16 where every value is a whole number that fits, else float32; True if NaN or infinities were replaced.

    Up to 0.1 % of the voxels may be NaN or infinite: they become -1024. More is E_NONFINITE.
    """
    whole = _whole_numbers(stored)
    if whole is not None:
        return whole, False
    values = stored.array
    if values.dtype != np.float32 or (stored.slope, stored.intercept) != (1, 0):
        values = np.empty(stored.array.shape, np.float32, order="F")
        for slab in _slabs(values.shape):
            values[slab] = _scaled(stored.array[slab], stored.slope, stored.intercept)
    lost = ~np.isfinite(values)
    share = float(lost.mean())
    if share >= _NONFINITE_SHARE:
        raise CaseError(
            "E_NONFINITE", f"{share:.2%} of the voxels are NaN or infinite, expected less than {_NONFINITE_SHARE:.1%}"
        )
    values[lost] = PADDING_HU
    return compact(values), bool(share)


def to_ids(stored: Stored) -> Int16[ndarray, "i j k"]:
    """Label ids 0..32767; E_LABEL_VALUES where a value is no such number."""
    ids = _whole_numbers(stored)
    valid = ids is None or bool(ids.min() >= 0)
    if ids is None:
        ids = np.empty(stored.array.shape, np.int16, order="F")
        for slab in _slabs(ids.shape):
            with np.errstate(over="ignore", invalid="ignore"):
                values = stored.array[slab].astype(np.float64) * stored.slope + stored.intercept
                ids[slab] = values
                valid = valid and bool(((ids[slab] == values) & (values >= 0)).all())
    if not valid:
        raise CaseError("E_LABEL_VALUES", f"the label map holds values other than whole numbers from 0 to {_INT16.max}")
    return ids


def _whole_numbers(stored: Stored) -> Int16[ndarray, "i j k"] | None:
    """int16 values of integers under an integer scaling, None where they do not fit or a fraction may come out."""
    if stored.array.dtype.kind == "f" or not (
        float(stored.slope).is_integer() and float(stored.intercept).is_integer()
    ):
        return None
    slope, intercept = int(stored.slope), int(stored.intercept)
    ends = [int(end) * slope + intercept for end in (stored.array.min(), stored.array.max())]
    if min(ends) < _INT16.min or max(ends) > _INT16.max:
        return None
    if stored.array.dtype == np.int16 and (slope, intercept) == (1, 0):
        return stored.array
    values = np.empty(stored.array.shape, np.int16, order="F")
    for slab in _slabs(values.shape):
        values[slab] = stored.array[slab].astype(np.int64) * slope + intercept
    return values


def compact(values: ndarray) -> ndarray:
    """int16 if that loses nothing."""
    for slab in _slabs(values.shape):
        block = values[slab]
        if not ((block == np.rint(block)) & (block >= _INT16.min) & (block <= _INT16.max)).all():
            return values
    return values.astype(np.int16)


def _slabs(shape: tuple[int, ...]):
    return [(slice(None), slice(None), slice(k, k + _SLAB)) for k in range(0, shape[2], _SLAB)]
