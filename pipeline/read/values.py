"""Stored numbers -> HU or label ids, without a silent wrap-around."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int16, Shaped
from numpy import ndarray

from pipeline.errors import CaseError

PADDING_HU = -1024
_NONFINITE_SHARE = 1e-3
_INT16 = np.iinfo(np.int16)
_SLAB = 8

Hu = Int16[ndarray, "i j k"] | Float32[ndarray, "i j k"]


@dataclass(frozen=True)
class Stored:
    """Voxels as a file holds them: HU or ids = array * slope + intercept; `flags` is what its header made one notice."""

    array: Shaped[ndarray, "i j k"]
    slope: float
    intercept: float
    affine: Float64[ndarray, "4 4"]
    flags: frozenset[str] = frozenset()


def check_dtype(dtype: np.dtype) -> None:
    """Refuse what is not one real number per voxel."""
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise CaseError("E_DTYPE", f"the voxels are of type {dtype.name}, expected integers or real numbers")


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
        with np.errstate(over="ignore", invalid="ignore"):
            for slab in _slabs(values.shape):
                values[slab] = stored.array[slab].astype(np.float64) * stored.slope + stored.intercept
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
