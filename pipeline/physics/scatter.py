"""Scattered radiation on the detector, relative to the open field: by Monte Carlo, or by a kernel fitted to it.

The kernel spreads a scatter potential of every primary ray over the detector, as Ohnesorge et al. (Eur Radiol 9, 1999, 563)
and Sun and Star-Lack (Phys Med Biol 55, 2010, 6695) do. The potential is the mass m along the ray (Compton scattering counts
electrons, thus mass) times powers of three primary signals: of the ray, of its neighbourhood (what scatter crosses that leaves
a thin ray beside a thick body) and of the pixel that it reaches. It is spread by two Gaussians whose widths grow with the
distance between patient and detector: an air gap thins the scatter out, and what leaves the detector is lost.
resources/attenuation/fit_scatter.py fits the parameters to our own Monte Carlo in phantoms. In two CTs that it has not seen,
chest and abdomen, the kernel's mean is 0.92 to 1.22 times Monte Carlo's; the median behind the body is 0.90 to 1.35 times, but
1.7 to 1.9 times behind the abdomen in LAT. Where tissue fills a collimated field it is 0.6 to 0.9 times, down to 0.4 behind
40 cm at 60 kV. Where scatter itself is the subject, take Monte Carlo.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float, Real
from numpy import ndarray
from scipy.special import erf

from pipeline.errors import UserError
from pipeline.geometry import View
from pipeline.physics.attenuation import TABLES
from pipeline.physics.materials import Decomposition, decompose
from pipeline.physics.spectra import Spectrum
from pipeline.physics.transport import coarse_shape, transport

KINDS = ("kernel", "montecarlo")
COARSE_VOXELS = 64
KERNEL_BINS = 64
SMOOTHING_BINS = 1.5
"""Sigma of the Gaussian over Monte Carlo's 32 bins: 20 mm on a 43 cm detector, noise a fifth, scatter varies over more."""
NEIGHBOURHOOD_MM, RECEIVER_MM = 100.0, 20.0
"""Sigmas on the detector: of the shadow around a ray that its scatter has to cross, and of the shadow that it ends in."""
PARAMETERS = ("amplitude", "ray_power", "neighbour_power", "receiver_power", "narrow", "wide", "wide_share")


def scatter_signal(
    kind: str,
    ct_hu: Real[ndarray, "z y x"],
    affine: Float[ndarray, "4 4"],
    view: View,
    spectrum: Spectrum,
    decomposition: Decomposition,
    areal: Float[ndarray, "material v u"],
    primary: Float[ndarray, "v u"],
    photons: int,
    rng: np.random.Generator,
) -> Float[ndarray, "v u"]:
    """Scattered signal per detector pixel, relative to the open field there; `kind` is one of KINDS.

    `areal` in g/cm2 and `primary` (1 = open field) describe the primary image and serve the kernel; `photons` and `rng`
    serve Monte Carlo. No grid, no noise: pipeline.physics.detector adds them.
    """
    if kind not in KINDS:
        raise UserError(f"scatter {kind!r} is not known; expected one of: none, {', '.join(KINDS)}.")
    if kind == "montecarlo":
        density, coarse_affine = coarse_density(ct_hu, affine, decomposition)
        return montecarlo_scatter(density, coarse_affine, view, spectrum, photons, rng)
    if not (np.isfinite(primary).all() and np.isfinite(areal).all()):
        raise UserError("the primary image is not finite; expected numbers in every pixel. Correct the CT.")
    gap_mm = centre_to_detector_mm(ct_hu, affine, view, decomposition)
    return kernel_scatter(areal.sum(axis=0), primary, view, gap_mm, kernel_parameters(spectrum))


def montecarlo_scatter(
    density: Float[ndarray, "material z y x"],
    affine: Float[ndarray, "4 4"],
    view: View,
    spectrum: Spectrum,
    photons: int,
    rng: np.random.Generator,
) -> Float[ndarray, "v u"]:
    """Monte Carlo's tally as an image: scatter and open field, both smoothed by one Gaussian, then divided."""
    tally = transport(density, affine, view, spectrum, photons, rng)

    rows, columns = (
        gaussian_matrix(SMOOTHING_BINS * pixels / bins, np.linspace(0, pixels, bins + 1), pixels)
        for bins, pixels in zip(tally.scatter.shape, view.shape, strict=True)
    )
    return (rows @ tally.scatter @ columns.T) / (rows @ tally.open_field @ columns.T)


def kernel_scatter(
    mass: Float[ndarray, "v u"],
    primary: Float[ndarray, "v u"],
    view: View,
    gap_mm: float,
    parameters: Float[ndarray, "7"],
) -> Float[ndarray, "v u"]:
    """The kernel model for a mass image in g/cm2; `gap_mm` from the middle of the patient to the detector."""
    amplitude, ray, neighbour, receiver, narrow, wide, wide_share = parameters
    edges = [
        np.linspace(0, px, n + 1).astype(int) for n, px in zip(coarse_shape(view, KERNEL_BINS), view.shape, strict=True)
    ]
    pixel_mm = [np.linalg.norm(view.step_v_mm), np.linalg.norm(view.step_u_mm)]

    def spread(image: Float[ndarray, "r c"], sigma_mm: float, *, to_pixels: bool = True) -> Float[ndarray, "v u"]:
        rows, columns = (
            gaussian_matrix(sigma_mm / mm, e, px)
            if to_pixels
            else gaussian_matrix(sigma_mm / mm * (len(e) - 1) / px, np.arange(len(e)), len(e) - 1)
            for mm, e, px in zip(pixel_mm, edges, view.shape, strict=True)
        )
        return rows @ image @ columns.T

    shadow = np.log(np.clip(block_mean(primary, *edges), 1e-9, 1))
    around = spread(shadow, NEIGHBOURHOOD_MM, to_pixels=False)
    behind = spread(shadow, RECEIVER_MM) / spread(np.ones_like(shadow), RECEIVER_MM)
    potential = np.maximum(block_mean(mass, *edges), 0) / 10 * np.exp(ray * shadow + neighbour * around)
    scatter = (1 - wide_share) * spread(potential, narrow * gap_mm) + wide_share * spread(potential, wide * gap_mm)
    return amplitude * np.exp(receiver * behind) * scatter


def kernel_parameters(spectrum: Spectrum) -> Float[ndarray, "7"]:
    """PARAMETERS for a spectrum, interpolated in the mean energy between the fitted ones, the nearest beyond them."""
    table = _kernel_table()
    mean = float(np.average(spectrum.energy_kev, weights=spectrum.fluence))
    return np.array([np.interp(mean, table[:, 0], column) for column in table[:, 1:].T])


def coarse_density(
    ct_hu: Real[ndarray, "z y x"], affine: Float[ndarray, "4 4"], decomposition: Decomposition
) -> tuple[Float[ndarray, "material zb yb xb"], Float[ndarray, "4 4"]]:
    """Densities in g/cm3 averaged over blocks of voxels, at most COARSE_VOXELS along each axis, and their affine.

    Blocks that stick out of the volume are part vacuum, so that mass is kept.
    """
    block = [-(-n // COARSE_VOXELS) for n in ct_hu.shape]
    starts = [np.arange(0, n, b) for n, b in zip(ct_hu.shape, block, strict=True)]
    slabs = []
    for first in starts[0]:
        slab = decompose(ct_hu[first : first + block[0]], decomposition).sum(axis=1)
        slabs.append(np.add.reduceat(np.add.reduceat(slab, starts[1], axis=1), starts[2], axis=2) / np.prod(block))
    to_fine = np.diag([*block[::-1], 1.0])
    to_fine[:3, 3] = (np.array(block[::-1]) - 1) / 2
    return np.stack(slabs, axis=1).astype(float), affine @ to_fine


def centre_to_detector_mm(
    ct_hu: Real[ndarray, "z y x"], affine: Float[ndarray, "4 4"], view: View, decomposition: Decomposition
) -> float:
    """Distance in mm of the patient's centre of mass from the detector's plane."""
    every = [max(1, n // 32) for n in ct_hu.shape]
    sampled = ct_hu[tuple(slice(step // 2, None, step) for step in every)]
    mass = decompose(sampled, decomposition).sum(axis=0, dtype=float)
    weights = mass / max(mass.sum(), 1e-30)
    index = [(weights * i).sum() * step + step // 2 for i, step in zip(np.indices(mass.shape), every, strict=True)]
    centre = (affine @ [*index[::-1], 1.0])[:3]
    normal = np.cross(view.step_u_mm, view.step_v_mm)
    return float(abs((view.origin_mm - centre) @ normal) / np.linalg.norm(normal))


def gaussian_matrix(
    sigma_px: float, edges_px: Real[ndarray, "edges"], pixels: int
) -> Float[ndarray, "{pixels} edges-1"]:
    """What each bin's unit signal adds at each pixel's centre when a Gaussian spreads it; edges at k lie before pixel k."""
    reach = (edges_px[None, :] - np.arange(pixels)[:, None] - 0.5) / (np.sqrt(2) * max(sigma_px, 1e-3))
    return np.diff(erf(reach), axis=1) / 2


def block_mean(
    image: Float[ndarray, "v u"], rows: Real[ndarray, "r"], columns: Real[ndarray, "c"]
) -> Float[ndarray, "r-1 c-1"]:
    """Means over blocks between the given edges."""
    total = np.add.reduceat(np.add.reduceat(image.astype(float), rows[:-1], axis=0), columns[:-1], axis=1)
    return total / np.outer(np.diff(rows), np.diff(columns))


@cache
def _kernel_table() -> Float[ndarray, "spectrum 8"]:
    """Mean energy in keV and PARAMETERS of the fitted spectra, by rising energy."""
    table = np.loadtxt(TABLES / "scatter_kernel.tsv", skiprows=6, usecols=range(1, 9), ndmin=2)
    return table[np.argsort(table[:, 0])]
