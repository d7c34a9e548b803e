"""Does the picture hold the whole width of the body? Scanners reconstruct squares, and often only a circle in them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64
from nibabel import io_orientation
from numpy import ndarray

from pipeline.read.values import Hu

_BODY_HU = -250
_SLICES = 64
_BORDER_SHARE = 0.02
_SLICE_SHARE = 0.05


def check_field_of_view(data: Hu, affine: Float64[ndarray, "4 4"]) -> set[str]:
    """FOV_CIRCLE where the corners outside an inscribed circle hold one padding value, TRUNC_FOV where the body is cut.

    Cut means: in more than 5 % of the axial slices more than 2 % of the border is denser than -250 HU. The border is
    the patient's left and right edge of the picture, or the rim of the circle there; in front and behind there is only
    the table to be cut, or a belly. A sample of slices is looked at.
    """
    axes = [int(axis) for axis in io_orientation(affine)[:, 0]]
    slices = data.transpose(axes.index(2), axes.index(0), axes.index(1))  # (head, right, front), either way round
    slices = slices[:: max(1, len(slices) // _SLICES)]
    corner, rim, edge = _places(slices.shape[1], slices.shape[2])
    circle = _is_circle(slices, corner, rim)
    cut = (slices[:, rim if circle else edge] > _BODY_HU).mean(axis=1) > _BORDER_SHARE
    flags = {"FOV_CIRCLE"} if circle else set()
    return flags | ({"TRUNC_FOV"} if cut.mean() > _SLICE_SHARE else set())


def _places(columns: int, rows: int) -> list[Bool[ndarray, "column row"]]:
    """Pixels surely outside the inscribed circle, those just inside it at the sides, and the two side edges."""
    x, y = _from_the_middle(columns, rows)
    radius = np.hypot(x, y)
    return [
        radius > 1.05,
        (radius > 0.93) & (radius < 0.97) & (abs(x) > abs(y)),
        (abs(x) > 1 - 1.5 / columns) & (y < 2),
    ]


def beyond_rim(columns: int, rows: int) -> Bool[ndarray, "column row"]:
    """Pixels on the rim of the inscribed circle and outside: what lies there is cut where the picture is round."""
    return np.hypot(*_from_the_middle(columns, rows)) > 0.97


def _from_the_middle(columns: int, rows: int) -> list[ndarray]:
    """Distances to the middle, 1 at the edge."""
    x, y = np.ogrid[:columns, :rows]
    return [(2 * x - columns + 1) / columns, (2 * y - rows + 1) / rows]


def _is_circle(slices: ndarray, corner: ndarray, rim: ndarray) -> bool:
    padding = slices[0, 0, 0]
    outside = float((slices[:, corner] == padding).mean()) if corner.any() and rim.any() else 0.0
    return bool(padding <= -900 and outside > 0.99 and float((slices[:, rim] == padding).mean()) < 0.5)
