"""From HU to line integrals of attenuation, or of material densities, by any backend and with little memory.

Joseph's kernel derives what it needs from int16 HU as it reads them, all materials in one pass; every other backend gets
one float32 volume at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Float32, Int16
from numpy import ndarray

from pipeline.geometry import View
from pipeline.physics.materials import MATERIALS, Decomposition, material_density
from pipeline.physics.monoenergetic import hu_to_mu, mu_water_per_mm
from pipeline.projectors import get_projector
from pipeline.projectors.columns import Code
from pipeline.projectors.joseph import project_joseph_hu


def attenuation_integrals(
    ct_hu: Int16[ndarray, "z y x"],
    affine: Float[ndarray, "4 4"],
    views: Sequence[View],
    *,
    beam: str,
    backend: str,
    energy_kev: float,
) -> Float32[ndarray, "view v u"]:
    """Line integrals of attenuation at one photon energy: -log(I / I0)."""
    water = mu_water_per_mm(energy_kev)
    code = Code(1, water / 1000, water, water / 1000, water)
    volumes = (lambda: hu_to_mu(ct_hu, energy_kev),)
    return _integrals(ct_hu, affine, views, beam, backend, code, volumes)[:, 0]


def areal_densities(
    ct_hu: Int16[ndarray, "z y x"],
    affine: Float[ndarray, "4 4"],
    views: Sequence[View],
    *,
    beam: str,
    backend: str,
    decomposition: Decomposition,
) -> Float32[ndarray, "view material v u"]:
    """Mass per area in g/cm2 that each ray meets, for each of MATERIALS."""
    d = decomposition
    code = Code(
        len(MATERIALS),
        *(d.slope_low, d.offset_low, d.slope_high, d.offset_high),
        air_until=d.air_until,
        air_width=d.air_until - d.air_from,
        bone_from=d.bone_from,
        bone_width=d.bone_until - d.bone_from,
    )
    volumes = [lambda material=material: material_density(ct_hu, d, material) for material in MATERIALS]
    areal = _integrals(ct_hu, affine, views, beam, backend, code, volumes)
    areal *= np.float32(0.1)  # g/cm3 mm -> g/cm2
    return areal


def _integrals(
    ct_hu: Int16[ndarray, "z y x"],
    affine: Float[ndarray, "4 4"],
    views: Sequence[View],
    beam: str,
    backend: str,
    code: Code,
    volumes: Sequence[Callable[[], ndarray]],
) -> Float32[ndarray, "view channel v u"]:
    if backend == "joseph":
        return project_joseph_hu(ct_hu, affine, views, code, volumes)
    project = get_projector(beam, backend)
    return np.stack([project(volume(), affine, views) for volume in volumes], axis=1).astype(np.float32)
