"""From Hounsfield units to densities of air, soft tissue and bone: named, versioned decompositions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Real
from numpy import ndarray

from pipeline.errors import unknown

MATERIALS = ("air", "soft_tissue", "bone")
"""The order of the material axis everywhere; each is a material of pipeline.physics.attenuation."""


@dataclass(frozen=True)
class Decomposition:
    """Piecewise linear in HU, so that a kernel can apply it voxel by voxel.

    density = max(min(slope_low * HU + offset_low, slope_high * HU + offset_high), 0) in g/cm3; its mass is air up to
    `air_from` and falls to none at `air_until`, bone from `bone_until` and none up to `bone_from`, soft tissue the rest.
    """

    name: str
    slope_low: float
    offset_low: float
    slope_high: float
    offset_high: float
    air_from: float
    air_until: float
    bone_from: float
    bone_until: float


DECOMPOSITIONS = {
    # DeepDRR 1.2's curve and thresholds: air <= -800 HU, bone > 350 HU, soft tissue between. The ramps of one HU are those
    # thresholds on integer HU. Its water (HU 0) has 1.03 g/cm3 and attenuates 1.5 % more than water does.
    "deepdrr-v1": Decomposition("deepdrr-v1", 0.001029, 1.03, 0.0005886, 1.03, -800.0, -799.0, 350.0, 351.0),
    # Made to give a 120 kVp scanner (70 keV effective) its own HU back. Tissue attenuates as 1 + HU / 1000: 1.0145 g/cm3 at
    # HU 0 (water's 0.19285 over soft tissue's 0.19009 cm2/g), air's 0.0012 at -1000. Bone begins above muscle and blood at
    # 50 HU, from where density goes straight to cortical bone, 1.92 g/cm3 at 1537 HU. A mixture by volume is concave in HU
    # by mass: the straight ramp to 1300 HU stays nearest to it. Lung is tissue by mass, 99 % at -900 HU: air ends there.
    # The HU come back within 2 up to 50, within 60 from there to 1600 (tests).
    "smooth-v1": Decomposition("smooth-v1", 0.0010133, 1.0145, 0.0005749, 1.0364, -1000.0, -900.0, 50.0, 1300.0),
}


def get_decomposition(name: str) -> Decomposition:
    """A decomposition by name; an unknown one is an error that lists the known ones."""
    if name not in DECOMPOSITIONS:
        raise unknown(f"materials {name!r} is not known", name, DECOMPOSITIONS, " Correct materials.")
    return DECOMPOSITIONS[name]


def decompose(ct_hu: Real[ndarray, "*grid"], decomposition: Decomposition) -> Float32[ndarray, "material *grid"]:
    """Density of each of MATERIALS in g/cm3; they sum to the density of the voxel."""
    return np.stack([material_density(ct_hu, decomposition, material) for material in MATERIALS])


def material_density(
    ct_hu: Real[ndarray, "*grid"], decomposition: Decomposition, material: str
) -> Float32[ndarray, "*grid"]:
    """Density of one of MATERIALS in g/cm3."""
    d = decomposition
    hu = ct_hu.astype(np.float32)
    share = {
        "air": lambda: _ramp(hu, d.air_until, d.air_from),
        "bone": lambda: _ramp(hu, d.bone_from, d.bone_until),
        "soft_tissue": lambda: 1 - _ramp(hu, d.air_until, d.air_from) - _ramp(hu, d.bone_from, d.bone_until),
    }[material]()
    density = np.minimum(d.slope_low * hu + d.offset_low, d.slope_high * hu + d.offset_high)
    np.maximum(density, 0, out=density)
    return density * share


def _ramp(hu: Float32[ndarray, "*grid"], zero_at: float, one_at: float) -> Float32[ndarray, "*grid"]:
    return np.clip((hu - np.float32(zero_at)) / np.float32(one_at - zero_at), 0, 1)
