"""Where X-rays were taken, as 3x4 matrices around the grid to reconstruct. Conventions: resources/shard.md."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from xr2ct.cases import Example, Task
from xr2ct.errors import UserError

NAMED_VIEWS = {"PA": (0.0, 0.0), "LAT": (90.0, 0.0), "AP": (180.0, 0.0), "RLAT": (-90.0, 0.0)}
"""Name -> gantry angles (alpha, beta) in degrees; LAT is the left lateral."""

Size = tuple[int, int]  # (rows, columns) of a detector or an image


@dataclass(frozen=True)
class Geometry:
    """Views around a grid of `shape` (z, y, x); `projection` maps RAS mm to pixel (u, v, 1) * w of an image of `size`."""

    views: tuple[str, ...]
    projection: Float[ndarray, "view 3 4"]
    sizes: tuple[Size, ...]
    affine: Float[ndarray, "4 4"]
    shape: tuple[int, ...]
    attrs: Mapping[str, Any]


def describe_geometry(example: Example) -> dict[str, Any]:
    """How one case was seen, as plain lists: what a checkpoint keeps so that it can meet X-rays without a shard."""
    xray, case = example.xray, example.case
    return {
        "views": list(xray.views),
        "projection": np.asarray(xray.projection, np.float64).tolist(),
        "detector_px": list(xray.image.shape[1:]),
        "affine": np.asarray(case.affine, np.float64).tolist(),
        "shape": list(case.ct_hu.shape),
        "attrs": {name: value for name, value in xray.attrs.items() if isinstance(value, str | int | float)},
    }


def trained_geometry(content: Mapping[str, Any], task: Task, path: object) -> Geometry:
    """The geometry of a checkpoint's training, moved so that the grid's centre is at 0 0 0 mm."""
    try:
        known = content["geometry"]
        affine, shape = np.array(known["affine"], np.float64), tuple(known["shape"])
        middle = np.eye(4)
        middle[:3, 3] = grid_centre(shape, affine)
        projection = np.array(known["projection"], np.float64) @ middle
        rows, columns = known["detector_px"]
        views = tuple(known["views"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: this checkpoint does not hold the geometry it was trained with. Train it again with this xr2ct."
        ) from error
    affine = np.linalg.inv(middle) @ affine
    return Geometry(views, projection, ((rows, columns),) * len(views), affine, task.shape, known["attrs"])


def grid_centre(shape: tuple[int, ...], affine: Float[ndarray, "4 4"]) -> Float[ndarray, "3"]:
    """World mm of the middle of a (z, y, x) grid."""
    return affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2) + affine[:3, 3]


def named_projection(
    *,
    beam: str,
    alpha_deg: float,
    beta_deg: float,
    pixel_mm: float,
    size: Size,
    sdd_mm: float = 0.0,
    sod_mm: float = 0.0,
    offset_mm: tuple[float, float] = (0.0, 0.0),
    roll_deg: float = 0.0,
) -> Float[ndarray, "3 4"]:
    """The matrix of a view that turns about 0 0 0 mm: beta tilts about x, then alpha turns about z, then the detector
    rolls from u to v; `offset_mm` (u, v) moves it along its own axes. w is 1 on the detector."""
    turn = rotation_about(2, alpha_deg) @ rotation_about(0, beta_deg)
    right, down, away = turn @ [-1.0, 0, 0], turn @ [0.0, 0, -1], turn @ [0.0, 1, 0]
    roll = np.deg2rad(roll_deg)
    u, v = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
    rows, columns = size
    centre = np.array([(columns - 1) / 2 - offset_mm[0] / pixel_mm, (rows - 1) / 2 - offset_mm[1] / pixel_mm])
    depth = np.array([0.0, 0, 0, 1]) if beam == "parallel" else np.append(away, sod_mm) / sdd_mm
    across = np.zeros((2, 4))
    across[:, :3] = np.stack([u, v]) / pixel_mm
    return np.vstack([across + centre[:, None] * depth, depth])


def rotation_about(axis: int, degrees: float) -> Float[ndarray, "3 3"]:
    """Right-handed about a world axis."""
    angle = np.deg2rad(degrees)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = np.cos(angle)
    matrix[second, first], matrix[first, second] = np.sin(angle), -np.sin(angle)
    return matrix


def rays_of(projection: Float[ndarray, "3 4"]) -> tuple[Float[ndarray, "4"], Float[ndarray, "3 3"]]:
    """`source_mm` and `detector_mm` of a shard, from a matrix: the plane where w is 1; of a parallel beam, which has
    none, the one through 0 0 0 mm."""
    matrix, last = projection[:, :3], projection[:, 3]
    if is_parallel(projection):
        across = matrix[:2] / last[2]
        steps = np.linalg.pinv(across)
        beam = np.cross(across[1], across[0])
        source = np.append(beam / np.linalg.norm(beam), 0.0)
        return source, np.stack([-steps @ (last[:2] / last[2]), steps[:, 1], steps[:, 0]])
    step_u, step_v, first = np.linalg.inv(matrix).T
    focus = -np.linalg.solve(matrix, last)
    return np.append(focus, 1.0), np.stack([focus + first, step_v, step_u])


def is_parallel(projection: Float[ndarray, "3 4"]) -> bool:
    """Whether w is the same everywhere."""
    return bool(np.abs(projection[2, :3]).max() <= 1e-9 * abs(projection[2, 3]))


def resized(projection: Float[ndarray, "3 4"], size: Size, to: Size) -> Float[ndarray, "3 4"]:
    """The matrix for the same picture stored with `to` pixels instead of `size`."""
    (rows, columns), (new_rows, new_columns) = size, to
    v, u = new_rows / rows, new_columns / columns
    return np.array([[u, 0, (u - 1) / 2], [0, v, (v - 1) / 2], [0, 0, 1]]) @ projection


def pixel_at(
    projection: Float[ndarray, "3 4"], point: Float[ndarray, "3"]
) -> tuple[Float[ndarray, "2"], Float[ndarray, "2"]]:
    """Where a world point appears, (u, v), and how many pixels a millimetre there moves along u and along v."""
    u, v, w = projection @ np.append(point, 1.0)
    at = np.array([u, v]) / w
    return at, np.linalg.norm((projection[:2, :3] - at[:, None] * projection[2, :3]) / w, axis=1)
