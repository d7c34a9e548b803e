"""Do these labels make a person? Left lies left of right, and each vertebra below the one before it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Integer
from numpy import ndarray

from pipeline.errors import CaseError

_LEAST_MM3, _LEAST_SHARE = 500.0, 0.2
_CLEARLY_MM = 5.0
_VERTEBRA = re.compile(r"vertebrae_([CTLS])(\d+)")


def check_anatomy(ids: Integer[ndarray, "i j k"], affine: Float[ndarray, "4 4"], names: Mapping[int, str]) -> None:
    """E_LR_INCONSISTENT or E_LABEL_ORDER where two structures clearly (5 mm) lie the wrong way round in RAS mm.

    Judged by centroids, and only where both structures hold 0.5 ml or more and one is not a mere crumb (20 %) of the
    other: what a field of view cuts off, or a network puts on the wrong side, proves nothing. `names` are those of the
    file's own ids.
    """
    found = _centroids(ids, affine, names)
    for left, (left_mm3, left_mm) in found.items():
        right = left.replace("left", "right")
        if right == left or right not in found:
            continue
        right_mm3, right_mm = found[right]
        away_mm = left_mm[0] - right_mm[0]
        if min(left_mm3, right_mm3) >= _LEAST_SHARE * max(left_mm3, right_mm3) and away_mm > _CLEARLY_MM:
            raise CaseError(
                "E_LR_INCONSISTENT",
                f"{left} lies {away_mm:.0f} mm to the patient's right of {right}: the labels are swapped, or the image "
                "is mirrored",
            )
    spine = sorted((name for name in found if _VERTEBRA.fullmatch(name)), key=_from_the_head)
    for upper, lower in pairwise(spine):
        above_mm = found[lower][1][2] - found[upper][1][2]
        if above_mm > _CLEARLY_MM:
            raise CaseError(
                "E_LABEL_ORDER",
                f"{lower} lies {above_mm:.0f} mm above {upper}: the labels are mixed up, or the image is upside down",
            )


def _centroids(ids: ndarray, affine: ndarray, names: Mapping[int, str]) -> dict[str, tuple[float, Float[ndarray, "3"]]]:
    """Name -> (volume in mm3, centre in RAS mm) of every structure of 0.5 ml or more."""
    highest = max(names, default=0) + 1
    sums = np.zeros((4, highest))
    for k in range(ids.shape[2]):
        i, j = np.nonzero(ids[:, :, k])
        values = ids[i, j, k]
        for row, weights in enumerate((i, j, np.full(len(i), k), None)):
            sums[row] += np.bincount(values, weights, minlength=highest)[:highest]
    voxel_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
    by_name: dict[str, ndarray] = {}
    for value, name in names.items():
        by_name[name] = by_name.get(name, 0.0) + sums[:, value]
    return {
        name: (float(count * voxel_mm3), (affine @ np.append(np.array(at) / count, 1.0))[:3])
        for name, (*at, count) in sorted(by_name.items())
        if count * voxel_mm3 >= _LEAST_MM3
    }


def _from_the_head(name: str) -> tuple[int, int]:
    part, number = _VERTEBRA.fullmatch(name).groups()
    return "CTLS".index(part), int(number)
