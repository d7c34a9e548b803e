"""How far the borders of two masks lie apart, in millimetres: measure once, ask many questions."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class BorderDistances:
    """For each border voxel of one mask the distance to the nearest border voxel of the other; empty if a mask is."""

    true_to_predicted_mm: Float[ndarray, "n"]
    predicted_to_true_mm: Float[ndarray, "m"]


def border_distances(
    true: Bool[ndarray, "z y x"], predicted: Bool[ndarray, "z y x"], affine: Float[ndarray, "4 4"]
) -> BorderDistances:
    """Distances between voxel centres; `affine` maps the index (x, y, z, 1) to mm, so any spacing or shear is right.

    A voxel is border if one of its 6 neighbours is outside the mask; outside the volume counts as outside the mask.
    """
    if not (true.any() and predicted.any()):
        return BorderDistances(np.empty(0), np.empty(0))
    box = _bounding_box(true | predicted)
    a, b = (_border_mm(mask[box], affine) for mask in (true, predicted))
    return BorderDistances(cKDTree(b).query(a)[0], cKDTree(a).query(b)[0])


def hd95(distances: BorderDistances) -> float:
    """The larger of the two directed 95th percentiles (linear between ranks) in mm; 0 for equal masks, NaN if empty."""
    directed = (distances.true_to_predicted_mm, distances.predicted_to_true_mm)
    return float(max(np.percentile(d, 95) for d in directed)) if _measured(distances) else float("nan")


def chamfer(distances: BorderDistances) -> float:
    """Half the sum of the two mean (un-squared) distances in mm; 0 for equal masks, NaN if one is empty."""
    directed = (distances.true_to_predicted_mm, distances.predicted_to_true_mm)
    return float(sum(d.mean() for d in directed) / 2) if _measured(distances) else float("nan")


def _measured(distances: BorderDistances) -> bool:
    return distances.true_to_predicted_mm.size > 0


def _bounding_box(mask: Bool[ndarray, "z y x"]) -> tuple[slice, ...]:
    hits = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(hit[0], hit[-1] + 1) for hit in hits)


def _border_mm(mask: Bool[ndarray, "z y x"], affine: Float[ndarray, "4 4"]) -> Float[ndarray, "n 3"]:
    border = mask & ~binary_erosion(mask)
    return np.argwhere(border)[:, ::-1] @ affine[:3, :3].T
