"""From Hounsfield units to linear attenuation: named, versioned conversions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Real
from numpy import ndarray

from pipeline.errors import UserError

HU_TO_MU = "linear-clip-v1"
"""mu = mu_water(E) * max(0, 1 + HU / 1000): exact for air and water, soft for bone; air is 0 at any energy."""

_NIST_WATER_KEV = np.array([30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0])
_NIST_WATER_CM2_PER_G = np.array([0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505])


def mu_water_per_mm(energy_kev: float) -> float:
    """Linear attenuation of water (1 g/cm3), NIST mass attenuation interpolated log-log; energies 30 to 150 keV."""
    if not _NIST_WATER_KEV[0] <= energy_kev <= _NIST_WATER_KEV[-1]:
        raise UserError(
            f"energy_kev {energy_kev:g} lies outside the table; expected 30 to 150 keV. Choose one of these."
        )
    log_mu = np.interp(np.log(energy_kev), np.log(_NIST_WATER_KEV), np.log(_NIST_WATER_CM2_PER_G))
    return float(np.exp(log_mu)) / 10.0


def hu_to_mu(ct_hu: Real[ndarray, "z y x"], energy_kev: float) -> Float32[ndarray, "z y x"]:
    """Attenuation per mm at one photon energy by the conversion named HU_TO_MU."""
    mu = ct_hu.astype(np.float32)
    mu *= np.float32(0.001)
    mu += np.float32(1)
    np.maximum(mu, 0, out=mu)
    mu *= np.float32(mu_water_per_mm(energy_kev))
    return mu
