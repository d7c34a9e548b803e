"""Dice, HD95 and Chamfer distance as single papers and codes compute them: beside printed ones, never to choose by."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Int, UInt8
from numpy import ndarray

from xr2ct.metrics.registry import StructureMetrics
from xr2ct.metrics.surface import BorderDistances, border_distances, chamfer, hd95


def hd95_voxels(true: Bool[ndarray, "z y x"], predicted: Bool[ndarray, "z y x"]) -> float:
    """HD95 that counts voxels, whatever their size: MONAI without its `spacing` (xrayto3D, LiftXR); NaN if one is empty.

    Measured anew: where voxels are no cubes, another voxel may be the nearest.
    """
    return hd95(border_distances(true, predicted, np.eye(4)))


def chamfer_sum(distances: BorderDistances) -> float:
    """The sum of the two mean (un-squared) distances in mm, twice ours; NaN if one mask is empty."""
    return 2 * chamfer(distances)


def chamfer_sum_squared(distances: BorderDistances) -> float:
    """The sum of the two mean squared distances in mm^2 (BX2S-Net's ChamferDistance); NaN if one mask is empty.

    Between border voxels like ours; BX2S-Net's is between the vertices of marching cubes, in voxels.
    """
    return chamfer_sum(BorderDistances(distances.true_to_predicted_mm**2, distances.predicted_to_true_mm**2))


def dice_micro(true: UInt8[ndarray, "n"], predicted: UInt8[ndarray, "n"], *, background: bool = False) -> float:
    """One Dice of all labels together, as SPIDER's eq. 25: 2 sum |A and B| / sum(|A| + |B|); large structures decide it.

    With label 0, `background`, as SPIDER has it, that decides it nearly alone. NaN where no voxel has such a label.
    """
    overlap, total = (voxels[0 if background else 1 :].sum() for voxels in _count(true, predicted))
    return float(2 * overlap / total) if total else float("nan")


def dice_macro_background(true: UInt8[ndarray, "n"], predicted: UInt8[ndarray, "n"]) -> float:
    """The mean Dice of all labels that occur, 0 (background) among them: MONAI's include_background, its default.

    Ours is the mean without label 0. NaN for empty volumes.
    """
    overlap, total = _count(true, predicted)
    found = total > 0
    return float(np.mean(2 * overlap[found] / total[found])) if found.any() else float("nan")


def _count(
    true: UInt8[ndarray, "n"], predicted: UInt8[ndarray, "n"]
) -> tuple[Int[ndarray, "256"], Int[ndarray, "256"]]:
    """|A and B| and |A| + |B| of every label."""
    overlap, in_true, in_predicted = (
        np.bincount(labels, minlength=256) for labels in (true[true == predicted], true, predicted)
    )
    return overlap, in_true + in_predicted


LEGACY_STRUCTURE_METRICS: StructureMetrics = MappingProxyType(
    {
        "hd95_voxels": ("voxel", lambda true, predicted, distances: hd95_voxels(true, predicted)),
        "chamfer_sum": ("mm", lambda true, predicted, distances: chamfer_sum(distances)),
        "chamfer_sum_squared": ("mm^2", lambda true, predicted, distances: chamfer_sum_squared(distances)),
    }
)
"""Of each structure, as STRUCTURE_METRICS."""

LEGACY_LABEL_METRICS: Mapping[str, tuple[str, Callable[[ndarray, ndarray], float]]] = MappingProxyType(
    {
        "dice_micro": ("1", dice_micro),
        "dice_micro_background": ("1", partial(dice_micro, background=True)),
        "dice_macro_background": ("1", dice_macro_background),
    }
)
"""Name -> (unit, function of the true and the predicted label of every voxel): of all structures of a case at once."""
