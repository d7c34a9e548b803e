"""Slices as a radiologist hangs them, and which side of the patient each edge of a picture shows."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy import ndarray

SIDES = ("LR", "PA", "IS")  # negative and positive end of the world axes x, y, z
SHOWN_SHARE = np.sin(np.pi / 8)  # a direction carries a letter from 22.5 degrees on


@dataclass(frozen=True)
class Plane:
    """A cut through an (x, y, z) array in RAS order: rows run down and columns run right along the negative axes."""

    name: str
    across: int
    columns: int
    rows: int


PLANES = (Plane("axial", 2, 0, 1), Plane("coronal", 1, 0, 2), Plane("sagittal", 0, 1, 2))


@dataclass(frozen=True)
class Edges:
    """Letters at the edges of a picture: R/L patient right/left, A/P anterior/posterior, S/I superior/inferior."""

    left: str
    right: str
    top: str
    bottom: str


def to_ras(
    array: Shaped[ndarray, "z y x"], affine: Float[ndarray, "4 4"]
) -> tuple[Shaped[ndarray, "x y z"], Float[ndarray, "4 4"]]:
    """The same volume with axes that run nearest to +x, +y, +z of the world, and its affine."""
    orientation = io_orientation(affine)
    xyz = apply_orientation(array.T, orientation)
    return xyz, affine @ inv_ornt_aff(orientation, array.T.shape)


def cut(volume: Shaped[ndarray, "x y z"], plane: Plane, at: Int[ndarray, "3"]) -> Shaped[ndarray, "rows columns"]:
    """The slice through voxel `at`: axial and coronal with the patient's left on the right, sagittal facing left."""
    flat = volume.take(int(at[plane.across]), axis=plane.across)
    image = flat.T if plane.columns < plane.rows else flat
    return image[::-1, ::-1]


def cut_edges(affine: Float[ndarray, "4 4"], plane: Plane) -> Edges:
    """Edge letters of `cut` for a volume with this (RAS-ordered) affine."""
    return _edges(-affine[:3, plane.columns], -affine[:3, plane.rows])


def cut_aspect(affine: Float[ndarray, "4 4"], plane: Plane, image_shape: tuple[int, ...]) -> float:
    """Width over height in millimetres."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return float(image_shape[1] * spacing[plane.columns] / (image_shape[0] * spacing[plane.rows]))


def xray_edges(projection: Float[ndarray, "3 4"], centre_mm: Float[ndarray, "3"]) -> Edges:
    """Edge letters of an X-ray: where a small step along each world axis from the volume's centre moves its shadow."""
    points = np.vstack([np.zeros(3), np.eye(3)]) + centre_mm
    u, v, w = projection @ np.column_stack([points, np.ones(4)]).T
    moved = np.stack([u / w, v / w])
    steps = moved[:, 1:] - moved[:, :1]
    return _edges(steps[0], steps[1])


def _edges(right: Float[ndarray, "3"], down: Float[ndarray, "3"]) -> Edges:
    return Edges(left=_letters(-right), right=_letters(right), top=_letters(-down), bottom=_letters(down))


def _letters(direction: Float[ndarray, "3"]) -> str:
    """The letters of a world direction, strongest first."""
    share = direction / max(float(np.linalg.norm(direction)), 1e-12)
    ranked = sorted(range(3), key=lambda axis: -abs(share[axis]))
    return "".join(SIDES[axis][int(share[axis] > 0)] for axis in ranked if abs(share[axis]) > SHOWN_SHARE)


def interesting_voxel(ct_hu: Shaped[ndarray, "x y z"], label: Shaped[ndarray, "x y z"]) -> Int[ndarray, "3"]:
    """Where to cut: the centre of the labelled voxels, else of bone, else of the volume."""
    for mask in ((label > 0) & (label < 255), ct_hu > 200):
        if mask.any():
            return np.rint(np.argwhere(mask).mean(axis=0)).astype(int)
    return np.array(ct_hu.shape) // 2
