"""Where a photon goes after a collision: angles drawn from Thomson's and Klein-Nishina's formulas with form factors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

from pipeline.physics.attenuation import HC_KEV_ANGSTROM, form_factor_squared, incoherent_scattering

ELECTRON_KEV = 510.99895
"""Rest energy of the electron (CODATA 2018)."""
_X_PER_ANGSTROM = np.concatenate([[0.0], np.geomspace(1e-3, 12.5, 600)])


def rayleigh_cosine(
    energy_kev: Float[ndarray, "n"], material: str | None, rng: np.random.Generator
) -> Float[ndarray, "n"]:
    """Scattering cosines of Thomson's formula times F^2 of a material (None: point atoms)."""
    if material is None:
        return _rejection(len(energy_kev), lambda who: rng.uniform(-1, 1, len(who)), lambda c, _: (1 + c**2) / 2, rng)
    # F^2 as a density of x^2, which is uniform in the cosine: drawn by its cumulative, then Thomson by rejection.
    squared = _X_PER_ANGSTROM**2
    f2 = form_factor_squared(material, _X_PER_ANGSTROM)
    cumulative = np.concatenate([[0.0], np.cumsum(np.diff(squared) * (f2[1:] + f2[:-1]) / 2)])
    end = (energy_kev / HC_KEV_ANGSTROM) ** 2
    total = np.interp(end, squared, cumulative)

    def draw(who: ndarray) -> ndarray:
        return 1 - 2 * np.interp(rng.random(len(who)) * total[who], cumulative, squared) / end[who]

    return _rejection(len(end), draw, lambda c, _: (1 + c**2) / 2, rng)


def compton_cosine(
    energy_kev: Float[ndarray, "n"], material: str | None, rng: np.random.Generator
) -> Float[ndarray, "n"]:
    """Scattering cosines of Klein-Nishina's formula times S of a material (None: free electrons)."""
    wave = energy_kev / HC_KEV_ANGSTROM
    most = np.ones(len(wave)) if material is None else incoherent_scattering(material, wave)

    def accept(cosine: ndarray, who: ndarray) -> ndarray:
        ratio = compton_energy(energy_kev[who], cosine) / energy_kev[who]
        klein_nishina = ratio**2 * (ratio + 1 / ratio - 1 + cosine**2) / 2
        if material is None:
            return klein_nishina
        return klein_nishina * incoherent_scattering(material, wave[who] * np.sqrt((1 - cosine) / 2)) / most[who]

    return _rejection(len(wave), lambda who: rng.uniform(-1, 1, len(who)), accept, rng)


def compton_energy(energy_kev: Float[ndarray, "n"], cosine: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
    """Energy in keV after scattering off an electron at rest (Compton 1923)."""
    return energy_kev / (1 + energy_kev / ELECTRON_KEV * (1 - cosine))


def turn(
    direction: Float32[ndarray, "n 3"], cosine: Float[ndarray, "n"], rng: np.random.Generator
) -> Float32[ndarray, "n 3"]:
    """Unit vectors at the given angle to the old ones, their azimuth uniform (frame of Duff et al., JCGT 2017)."""
    x, y, z = direction.T.astype(float)
    sign = np.copysign(1.0, z)
    a = -1 / (sign + z)
    b = x * y * a
    side = np.stack([1 + sign * x * x * a, sign * b, -sign * x], axis=1)
    up = np.stack([b, sign + y * y * a, -y], axis=1)
    azimuth = rng.uniform(0, 2 * np.pi, len(x))
    sine = np.sqrt(np.maximum(1 - cosine**2, 0))
    turned = (
        direction * cosine[:, None] + side * (sine * np.cos(azimuth))[:, None] + up * (sine * np.sin(azimuth))[:, None]
    )
    return (turned / np.linalg.norm(turned, axis=1, keepdims=True)).astype(np.float32)


def _rejection(count: int, draw: Callable, accept: Callable, rng: np.random.Generator) -> Float[ndarray, "n"]:
    """`draw(who)` proposes for photons `who`, `accept(value, who)` is the chance (at most 1) to keep it; until all have."""
    values, who = np.ones(count), np.arange(count)
    while len(who):
        proposed = draw(who)
        kept = rng.random(len(who)) < accept(proposed, who)
        values[who[kept]] = proposed[kept]
        who = who[~kept]
    return values
