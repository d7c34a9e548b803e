"""Random smooth invertible deformations of a labelled CT: new shapes of the same patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int16, UInt8
from numpy import ndarray
from scipy.interpolate import make_interp_spline
from scipy.ndimage import gaussian_filter, map_coordinates

from pipeline.errors import UserError
from pipeline.resample import HU_RANGE, PADDING_HU

MIN_JACOBIAN = 0.2


@dataclass(frozen=True)
class Strength:
    """How far a derived case may move from its parent; every length in mm, every angle in degrees, noise in HU."""

    control_spacing_mm: float
    max_displacement_mm: float
    max_shift_mm: float
    max_rotation_deg: float
    max_scale: float
    structure_hu: float
    noise_hu: float


@dataclass(frozen=True)
class Deformation:
    """`displacement_mm[axis]` (z, y, x order) leads from a voxel of the derived case to its place in the parent."""

    displacement_mm: Float[ndarray, "3 z y x"]
    max_displacement_mm: float
    min_jacobian: float


def random_deformation(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: float, strength: Strength
) -> Deformation:
    """Rigid motion and scale about the centre plus a cubic-interpolated random field.

    The field is halved until the map's Jacobian determinant exceeds 0.2 everywhere (so that it can be inverted) and the
    elastic part stays within `max_displacement_mm`.
    """
    grid = np.indices(shape, dtype=np.float32) * spacing_mm
    centred = grid - grid.reshape(3, -1).mean(axis=1)[:, None, None, None]
    whole = np.einsum("ab,bzyx->azyx", _random_linear(rng, strength) - np.eye(3), centred)
    whole += rng.uniform(-strength.max_shift_mm, strength.max_shift_mm, 3)[:, None, None, None]

    elastic = np.stack([_smooth_noise(rng, shape, spacing_mm, strength.control_spacing_mm) for _ in range(3)])
    elastic *= strength.max_displacement_mm * rng.uniform(0.5, 1.0) / np.linalg.norm(elastic, axis=0).max()
    if min_jacobian(whole, spacing_mm) <= MIN_JACOBIAN:
        raise UserError(
            f"max_scale {strength.max_scale:g} and max_rotation_deg {strength.max_rotation_deg:g} fold the volume even "
            "without an elastic part; expected weaker ones (max_scale at most 0.3). Lower them."
        )
    while (jacobian := min_jacobian(whole + elastic, spacing_mm)) <= MIN_JACOBIAN:
        elastic *= 0.5
    total = (whole + elastic).astype(np.float32)
    return Deformation(total, float(np.linalg.norm(total, axis=0).max()), jacobian)


def _smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: float, control_spacing_mm: float
) -> Float[ndarray, "z y x"]:
    """Normal noise on a coarse grid of control points, interpolated by cubic splines along each axis in turn."""
    counts = [max(4, int(np.ceil(size * spacing_mm / control_spacing_mm)) + 1) for size in shape]
    field = rng.normal(size=counts)
    for size, count in zip(shape, counts, strict=True):
        weights = make_interp_spline(np.linspace(0, size - 1, count), np.eye(count), k=3)(np.arange(size))
        field = np.tensordot(field, weights, axes=(0, 1))  # the new axis comes last, so three turns restore the order
    return field


def _random_linear(rng: np.random.Generator, strength: Strength) -> Float[ndarray, "3 3"]:
    """Small rotation about each axis and one scale per axis."""
    rotation = np.eye(3)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        angle = np.deg2rad(rng.uniform(-strength.max_rotation_deg, strength.max_rotation_deg))
        turn = np.eye(3)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    common = rng.uniform(-strength.max_scale, strength.max_scale)
    return rotation @ np.diag(1 + common + rng.uniform(-strength.max_scale, strength.max_scale, 3) / 3)


def min_jacobian(displacement_mm: Float[ndarray, "3 z y x"], spacing_mm: float) -> float:
    """Smallest determinant of the derivative of x + displacement(x), by central differences on the grid."""
    rows = [np.gradient(component, spacing_mm, axis=(0, 1, 2)) for component in displacement_mm]
    first, second, third = ([value + (axis == row) for axis, value in enumerate(rows[row])] for row in range(3))
    determinant = (
        first[0] * (second[1] * third[2] - second[2] * third[1])
        - first[1] * (second[0] * third[2] - second[2] * third[0])
        + first[2] * (second[0] * third[1] - second[1] * third[0])
    )
    return float(determinant.min())


def derive_case(
    ct_hu: Int16[ndarray, "z y x"],
    label: UInt8[ndarray, "z y x"],
    *,
    spacing_mm: float,
    strength: Strength,
    rng: np.random.Generator,
) -> tuple[Int16[ndarray, "z y x"], UInt8[ndarray, "z y x"], Deformation]:
    """A new CT and its labels, moved by the same field, with new HU per structure and new noise."""
    changed = ct_hu.astype(np.float32)
    offset = rng.normal(0.0, strength.structure_hu, int(label.max()) + 1)
    offset[0] *= 0.5
    # Blurred by half a voxel, so that the change of HU makes no new edge; air stays air.
    changed += gaussian_filter(offset[label].astype(np.float32), 0.5) * (ct_hu > -950)
    field = random_deformation(rng, ct_hu.shape, spacing_mm, strength)
    at = np.indices(ct_hu.shape, dtype=np.float32) + field.displacement_mm / np.float32(spacing_mm)
    ct = map_coordinates(changed, at, order=3, mode="constant", cval=PADDING_HU)
    noise = gaussian_filter(rng.standard_normal(ct.shape, dtype=np.float32), 0.7)
    ct += noise * (strength.noise_hu / noise.std()) * (ct > -950)
    moved = map_coordinates(label, at, order=0, mode="constant", cval=0)
    return np.clip(np.rint(ct), *HU_RANGE).astype(np.int16), moved, field
