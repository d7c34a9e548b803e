"""Fit the scatter kernel of pipeline/physics/scatter.py to our Monte Carlo: python resources/attenuation/fit_scatter.py.

Soft tissue 5 to 30 cm thick, 10, 100 and 250 mm before the detector, in a cone beam (source-detector distance 1800 mm): a
slab in a narrow and in a wide field, and an elliptic cylinder in the wide field, with open beam beside it. Writes
scatter_kernel.tsv; about two minutes on one core.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipeline.geometry import View, make_view
from pipeline.physics.attenuation import mass_attenuation
from pipeline.physics.scatter import PARAMETERS, block_mean, kernel_scatter
from pipeline.physics.spectra import Spectrum, load_spectrum
from pipeline.physics.transport import transport

SPECTRA = ("60KV_AL35", "90KV_AL40", "120KV_AL43")
THICKNESS_CM = (5.0, 10.0, 20.0, 30.0)
GAP_MM = (10.0, 100.0, 250.0)
SHAPE_AND_FIELD_MM = (("slab", 150.0), ("slab", 420.0), ("body", 420.0))
SIDE_MM, BODY_WIDTH = 400.0, 1.4
PHOTONS, BINS, PIXELS, SDD_MM = 400_000, 8, 48, 1800.0
MODEL_ERROR = 0.1
"""Relative error that a bin may have beside Monte Carlo's noise: keeps the bins with many photons from ruling the fit."""


def phantom_view(thickness_cm: float, gap_mm: float, field_mm: float) -> View:
    """The phantom lies about the origin, `gap_mm` before the detector; its thickness is along y, the beam."""
    return make_view(
        "PA",
        np.zeros(3),
        beam="cone",
        detector_px=(PIXELS, PIXELS),
        pixel_mm=field_mm / PIXELS,
        sdd_mm=SDD_MM,
        sod_mm=SDD_MM - gap_mm - 5 * thickness_cm,
    )


def phantom_volume(shape: str, thickness_cm: float) -> tuple[np.ndarray, np.ndarray]:
    """A slab of SIDE_MM, or a cylinder along z that is BODY_WIDTH times as wide as thick."""
    thickness_mm = 10 * thickness_cm
    width = SIDE_MM if shape == "slab" else BODY_WIDTH * thickness_mm
    density = np.zeros((3, 2, 48, 48))
    y, x = np.meshgrid(*[(np.arange(48) - 23.5) / 24] * 2, indexing="ij")
    density[1] = 1.0 if shape == "slab" else x**2 + y**2 <= 1
    size = np.array([width / 48, thickness_mm / 48, SIDE_MM / 2])
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = -(np.array([47, 47, 1]) / 2) * size
    return density, affine


def phantom_mass(shape: str, thickness_cm: float, view: View) -> np.ndarray:
    """g/cm2 along every ray by closed forms: the chord of a box or of an ellipse, cut at the ends of z."""
    half = np.array([SIDE_MM, 10 * thickness_cm, SIDE_MM]) / 2
    pixel, along = view.rays()
    along = np.where(np.abs(along) < 1e-12, 1e-12, along)
    faces = np.stack([(-half - pixel) / along, (half - pixel) / along])
    enter, leave = faces.min(axis=0), faces.max(axis=0)
    if shape == "body":
        scale = 5 * thickness_cm * np.array([BODY_WIDTH, 1.0])
        p, d = pixel[..., :2] / scale, along[..., :2] / scale
        a, b, c = (d * d).sum(-1), (p * d).sum(-1), (p * p).sum(-1) - 1
        root = np.sqrt(np.maximum(b * b - a * c, 0))
        ellipse = [
            np.stack([(-b + sign * root) / a, side[..., 2]], axis=-1) for sign, side in ((-1, enter), (1, leave))
        ]
        enter, leave = ellipse
    return np.maximum(leave.min(axis=-1) - enter.max(axis=-1), 0) / 10


def primary_signal(mass: np.ndarray, spectrum: Spectrum) -> np.ndarray:
    weight = spectrum.energy_kev * spectrum.fluence
    mu = mass_attenuation("soft_tissue", spectrum.energy_kev)
    return np.exp(-mass[..., None] * mu) @ weight / weight.sum()


def fit(spectrum: Spectrum, seed: int) -> tuple[np.ndarray, float, float]:
    """Parameters, and over the phantoms the rms and the largest relative error of an image's mean."""
    edges = np.linspace(0, PIXELS, BINS + 1).astype(int)
    cases, truth, noise = [], [], []
    for thickness, gap, (shape, field) in product(THICKNESS_CM, GAP_MM, SHAPE_AND_FIELD_MM):
        view = phantom_view(thickness, gap, field)
        rng = np.random.default_rng(seed)
        tally = transport(*phantom_volume(shape, thickness), view, spectrum, PHOTONS, rng, detector_bins=BINS)
        mass = phantom_mass(shape, thickness, view)
        cases.append((mass, primary_signal(mass, spectrum), view, gap + 5 * thickness))
        truth.append(tally.scatter / tally.open_field)
        photon = spectrum.energy_kev @ spectrum.fluence
        noise.append(np.sqrt(photon * np.maximum(tally.scatter, photon)) / tally.open_field)

    def models(parameters: np.ndarray) -> np.ndarray:
        return np.array([block_mean(kernel_scatter(*case, parameters), edges, edges) for case in cases])

    def errors(parameters: np.ndarray) -> np.ndarray:
        return ((models(parameters) - truth) / np.hypot(MODEL_ERROR * np.array(truth), noise)).ravel()

    start = [1.2, 0.9, 1.2, 0.3, 1.0, 0.8]
    bounds = ([0, 0, 0, 0.02, 0.2, 0], [5, 2, 3, 1.0, 5.0, 1])
    found = least_squares(errors, start, bounds=bounds, loss="soft_l1").x
    means = models(found).mean(axis=(1, 2)) / np.array(truth).mean(axis=(1, 2)) - 1
    return found, float(np.sqrt((means**2).mean())), float(np.abs(means).max())


def main() -> None:
    lines = [
        "# made by resources/attenuation/fit_scatter.py",
        f"# soft tissue {THICKNESS_CM} cm thick, {GAP_MM} mm before the detector, in fields of {SHAPE_AND_FIELD_MM} mm",
        "# narrow, wide: sigma / distance of the middle to the detector; errors are of an image's mean, relative",
        "\t".join(["spectrum", "mean_kev", *PARAMETERS, "rms_error", "worst_error"]),
    ]
    for seed, name in enumerate(SPECTRA):
        spectrum = load_spectrum(name)
        found, rms, worst = fit(spectrum, seed)
        mean = np.average(spectrum.energy_kev, weights=spectrum.fluence)
        lines.append(
            "\t".join([name, f"{mean:.3f}", *(f"{value:.5f}" for value in found), f"{rms:.3f}", f"{worst:.3f}"])
        )
        print(lines[-1])
    (Path(__file__).parent / "scatter_kernel.tsv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
