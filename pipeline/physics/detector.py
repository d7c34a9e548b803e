"""What the detector reads: energy-integrating, polychromatic, with quantum noise, blur and an anti-scatter grid.

It absorbs every photon that arrives; the share of quanta that a real one misses is a smaller number of `photons`.
Every signal is relative to the open field, the reading without an object but with the grid in place: 1 = open field.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Real
from numpy import ndarray
from scipy.ndimage import gaussian_filter

from pipeline.errors import UserError, unknown
from pipeline.native import call, has_kernels
from pipeline.physics.attenuation import mass_attenuation
from pipeline.physics.materials import MATERIALS
from pipeline.physics.spectra import Spectrum

CHUNK_PX = 512
"""Pixels worked on at once: 512 x 151 bins of float32 stay in a core's cache, and memory is flat in both."""

MOST_PHOTONS = 1e12
LEAST_PHOTONS = 0.5
"""A pixel that counted nothing reads half a photon, so that its logarithm exists."""
LEAST_INTENSITY = 1e-30
"""The same floor without noise, a line integral of 69: no float32 in or after it is subnormal."""


@dataclass(frozen=True)
class Grid:
    """Share of the primary and of the scattered signal that an anti-scatter grid lets through."""

    primary: float
    scatter: float


GRIDS = {
    "none": Grid(1.0, 1.0),
    # Scaled from r10, not measured: lead covers 15 %, absorption between its strips grows with their height, and the angle
    # that scatter may come from shrinks with 1 / ratio. Inside the usual 0.5 to 0.75 for the primary signal.
    "r8": Grid(0.73, 0.26),
    # Measured behind 30 cm of acrylic: Altunbas et al. 2016, doi 10.1118/1.4957763 (in full: Med Phys 44 (2017) 3952).
    "r10": Grid(0.706, 0.21),
    "r12": Grid(0.68, 0.175),
}


def expose(
    areal_g_per_cm2: Float[ndarray, "material v u"],
    spectrum: Spectrum,
    *,
    photons: float,
    scatter: Float[ndarray, "v u"] | None,
    grid: str,
    psf_px: float,
    rng: np.random.Generator,
) -> Float32[ndarray, "v u"]:
    """The detector's reading of an object, relative to the open field; the parameters are those of `read_out`."""
    signal, second_moment = detected_energy(areal_g_per_cm2, spectrum)
    return read_out(
        signal, second_moment, spectrum, photons=photons, scatter=scatter, grid=grid, psf_px=psf_px, rng=rng
    )


def read_out(
    signal: Float[ndarray, "v u"],
    second_moment: Float[ndarray, "v u"],
    spectrum: Spectrum,
    *,
    photons: float,
    scatter: Float[ndarray, "v u"] | None,
    grid: str,
    psf_px: float,
    rng: np.random.Generator,
) -> Float32[ndarray, "v u"]:
    """The reading from what `detected_energy` gave: grid, noise, blur, in the order in which they happen.

    `photons` per pixel of the open field arrive in front of the grid, which takes its share (0 = no noise, no other
    effect). Scattered photons count as quanta of the open field's energies. Noise comes before blur: quanta are counted
    where they are absorbed, their light spreads afterwards. Blur therefore also smooths the noise, as in a scintillator:
    its variance falls to sum(kernel^2), 0.41 at psf_px = 0.5, and neighbours are correlated. Finite logarithms are
    guaranteed: readings end at LEAST_PHOTONS of the photons behind the grid, or LEAST_INTENSITY without noise.
    """
    require_exposure(photons=photons, grid=grid, psf_px=psf_px)
    scatter = np.zeros_like(signal) if scatter is None else scatter
    primary, scatter = apply_grid(signal, scatter, grid)
    photons = photons * get_grid(grid).primary
    total = add_noise(primary + scatter, second_moment + scatter, photons, spectrum, rng)
    floor = min(LEAST_PHOTONS / photons, 1.0) if photons else LEAST_INTENSITY
    return np.maximum(blur(total, psf_px), floor).astype(np.float32)


def require_exposure(*, photons: float, grid: str, psf_px: float) -> None:
    """UserError for the first of these settings that no exposure can have."""
    if not 0 <= photons <= MOST_PHOTONS:
        raise UserError(
            f"photons {photons:g}; expected 0 (no noise) to {MOST_PHOTONS:g} per pixel of the open field. Correct photons."
        )
    if not 0 <= psf_px <= 100:
        raise UserError(
            f"psf_px {psf_px:g}; expected a standard deviation of 0 (no blur) to 100 pixels. Correct psf_px."
        )
    get_grid(grid)


def get_grid(name: str) -> Grid:
    """A grid by name; an unknown one is an error that lists the known ones."""
    if name not in GRIDS:
        raise unknown(f"grid {name!r} is not known", name, GRIDS, " Correct grid.")
    return GRIDS[name]


def detected_energy(
    areal_g_per_cm2: Float[ndarray, "material v u"], spectrum: Spectrum
) -> tuple[Float[ndarray, "v u"], Float[ndarray, "v u"]]:
    """Mean energy and mean squared energy that arrive, relative to the open field: Beer-Lambert summed over the bins.

    `areal_g_per_cm2` in the order of MATERIALS. Exact 0 where no energy is left that float32 can hold (line integral
    above 103); single precision otherwise, 1e-6.
    """
    attenuation, weights = detector_tables(spectrum, MATERIALS)
    areal = areal_g_per_cm2.reshape(len(areal_g_per_cm2), -1).astype(np.float32, copy=False)
    run = _detected_energy_native if has_kernels() else _detected_energy_numpy
    signal, second_moment = run(areal, attenuation, weights)
    shape = areal_g_per_cm2.shape[1:]
    return signal.reshape(shape), second_moment.reshape(shape)


def detector_tables(
    spectrum: Spectrum, materials: Iterable[str]
) -> tuple[Float32[ndarray, "material bin"], Float[ndarray, "2 bin"]]:
    """cm2/g of every material, and the weights of the bins in the energy and in the squared energy (each sums to 1)."""
    attenuation = np.stack([mass_attenuation(material, spectrum.energy_kev) for material in materials])
    moments = np.stack([spectrum.fluence * spectrum.energy_kev, spectrum.fluence * spectrum.energy_kev**2])
    return attenuation.astype(np.float32), moments / moments.sum(axis=1, keepdims=True)


def _detected_energy_numpy(
    areal: Float32[ndarray, "material px"],
    attenuation: Float32[ndarray, "material bin"],
    weights: Float[ndarray, "2 bin"],
) -> Float[ndarray, "2 px"]:
    """sum over bins of weight * exp(-sum over materials of areal density * attenuation)."""
    out = np.empty((2, areal.shape[1]))
    absorbing = -attenuation.T
    for start in range(0, areal.shape[1], CHUNK_PX):
        part = slice(start, start + CHUNK_PX)
        transmitted = absorbing @ areal[:, part]
        np.exp(transmitted, out=transmitted)
        out[:, part] = weights @ transmitted.astype(np.float64)
    return out


def _detected_energy_native(
    areal: Float32[ndarray, "material px"],
    attenuation: Float32[ndarray, "material bin"],
    weights: Float[ndarray, "2 bin"],
) -> Float[ndarray, "2 px"]:
    """The same by kernels/detector.c, in single precision."""
    out = np.empty((2, areal.shape[1]), np.float32)
    first, second = weights.astype(np.float32)
    materials, bins = attenuation.shape
    areal = np.ascontiguousarray(areal)
    call("detect", areal, areal.shape[1], attenuation, bins, materials, first, second, out[0], out[1])
    return out


def add_noise(
    signal: Float[ndarray, "v u"],
    second_moment: Float[ndarray, "v u"],
    photons: float,
    spectrum: Spectrum,
    rng: np.random.Generator,
) -> Float[ndarray, "v u"]:
    """Quantum noise of `photons` per pixel of the open field; 0 photons = no noise.

    The energy of a Poisson number of photons of mixed energies has mean n1 = sum n(E) E and variance n2 = sum n(E) E^2.
    Both are met exactly by a Poisson number with mean n1^2 / n2, each quantum worth n2 / n1 (Whiting, Proc SPIE 4682
    (2002) 53). A pixel that nothing reaches (signal 0) reads 0.
    """
    if photons == 0:
        return signal
    energy = spectrum.energy_kev
    mean_kev = energy @ spectrum.fluence
    quantum = np.divide(second_moment, signal, out=np.ones(signal.shape), where=signal > 0)
    quantum *= (energy**2 @ spectrum.fluence) / mean_kev**2 / photons
    return rng.poisson(signal / quantum) * quantum


def blur(signal: Real[ndarray, "v u"], psf_px: float) -> Real[ndarray, "v u"]:
    """Gaussian point spread, standard deviation in pixels; mirrored at the edges, so that no energy enters or leaves."""
    return gaussian_filter(signal, psf_px, mode="reflect") if psf_px > 0 else signal


def apply_grid(
    primary: Float[ndarray, "v u"], scatter: Float[ndarray, "v u"], grid: str
) -> tuple[Float[ndarray, "v u"], Float[ndarray, "v u"]]:
    """Primary and scattered signal behind a grid, relative to the open field behind the same grid."""
    through = get_grid(grid)
    return primary, scatter * (through.scatter / through.primary)
