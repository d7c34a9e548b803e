"""Fit the scatter kernel of pipeline/physics/scatter.py to Monte Carlo: python resources/attenuation/fit_scatter.py [CT ...].

Soft tissue 5 to 40 cm thick, 50 to 500 mm before the detector (source-detector distance 1500 mm): a wall and a slab
that fill the field, and with open beam around them a slab and an elliptic cylinder with cut ends, as a CT has.
CTs are not fitted: those given are checked against in PA and LAT at PATIENT_SOD_SDD_MM, on a detector as large as their
shadow. Writes scatter_kernel.tsv; about two minutes on one core, and one more per CT.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipeline.geometry import View, make_view
from pipeline.one_volume import fit_detector, load_ct
from pipeline.physics.attenuation import mass_attenuation
from pipeline.physics.detector import detected_energy
from pipeline.physics.materials import DECOMPOSITIONS
from pipeline.physics.scatter import PARAMETERS, block_mean, centre_to_detector_mm, coarse_density, kernel_scatter
from pipeline.physics.spectra import Spectrum, load_spectrum
from pipeline.physics.transport import transport
from pipeline.project import place_views
from pipeline.projectors.from_hu import areal_densities
from pipeline.simulators import DEFAULTS

SPECTRA = ("60KV_AL35", "90KV_AL40", "120KV_AL43")
THICKNESS_CM = (5.0, 10.0, 20.0, 30.0, 40.0)
GAP_MM = (50.0, 200.0, 500.0)
SHAPE_AND_FIELD_MM = (("slab", 200.0), ("slab", 600.0), ("body", 600.0), ("wall", 420.0))
SIDE_MM, BODY_WIDTH = {"slab": 300.0, "body": 300.0, "wall": 600.0}, 1.4
PHOTONS, BINS, PIXELS, SDD_MM = 200_000, 8, 64, 1500.0
PATIENT_SOD_SDD_MM = ((700.0, 1000.0), (1500.0, 1800.0))
BIN_ERROR, MEAN_ERROR = 0.2, 0.1
"""Errors of logarithms that the model may have beside Monte Carlo's noise, in a bin and in an image's mean: both are fitted."""
BEHIND_BODY = 0.05
"""Primary signal below which a bin lies behind the body."""


@dataclass(frozen=True)
class Case:
    """Arguments of kernel_scatter, Monte Carlo's scatter in BINS x BINS relative to the open field, and its relative noise."""

    mass: np.ndarray
    primary: np.ndarray
    view: View
    gap_mm: float
    truth: np.ndarray
    noise: np.ndarray


def make_case(
    density: np.ndarray,
    affine: np.ndarray,
    mass: np.ndarray,
    primary: np.ndarray,
    view: View,
    gap_mm: float,
    spectrum: Spectrum,
    photons: int,
    seed: int,
) -> Case:
    tally = transport(density, affine, view, spectrum, photons, np.random.default_rng(seed), detector_bins=BINS)
    photon = spectrum.energy_kev @ spectrum.fluence / spectrum.fluence.sum()
    scatter = np.maximum(tally.scatter, photon)
    return Case(mass, primary, view, gap_mm, scatter / tally.open_field, np.sqrt(photon / scatter))


def phantom_cases(spectrum: Spectrum, seed: int) -> list[Case]:
    cases = []
    for thickness, gap, (shape, field) in product(THICKNESS_CM, GAP_MM, SHAPE_AND_FIELD_MM):
        view, middle_mm = phantom_view(thickness, gap, field), gap + 5 * thickness
        mass = phantom_mass(shape, thickness, view)
        volume, primary = phantom_volume(shape, thickness), primary_signal(mass, spectrum)
        cases.append(make_case(*volume, mass, primary, view, middle_mm, spectrum, PHOTONS, seed))
    return cases


def patient_cases(path: Path, spectrum: Spectrum, seed: int) -> list[Case]:
    """A CT at PATIENT_SOD_SDD_MM in the default views and materials."""
    ct_hu, affine = load_ct(path)
    cases = []
    for sod_mm, sdd_mm in PATIENT_SOD_SDD_MM:
        values = {**DEFAULTS, "beam": "cone", "physics": "realistic", "detector_px": (PIXELS, PIXELS)}
        simulator = fit_detector({**values, "sod_mm": sod_mm, "sdd_mm": sdd_mm}, ct_hu.shape, affine, case="", seed=1)
        curves, views = DECOMPOSITIONS[simulator.materials], place_views(ct_hu.shape, affine, simulator)
        areal = areal_densities(
            ct_hu, affine, views, beam=simulator.beam, backend=simulator.backend, decomposition=curves
        )
        coarse = coarse_density(ct_hu, affine, curves)
        for view, column in zip(views, areal, strict=True):
            primary, _ = detected_energy(column, spectrum)
            gap_mm = centre_to_detector_mm(ct_hu, affine, view, curves)
            cases.append(make_case(*coarse, column.sum(axis=0), primary, view, gap_mm, spectrum, 2 * PHOTONS, seed))
    return cases


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
    """A slab or wall of SIDE_MM, or a cylinder along z that is BODY_WIDTH times as wide as thick."""
    thickness_mm = 10 * thickness_cm
    width = BODY_WIDTH * thickness_mm if shape == "body" else SIDE_MM[shape]
    density = np.zeros((3, 2, 48, 48))
    y, x = np.meshgrid(*[(np.arange(48) - 23.5) / 24] * 2, indexing="ij")
    density[1] = x**2 + y**2 <= 1 if shape == "body" else 1.0
    size = np.array([width / 48, thickness_mm / 48, SIDE_MM[shape] / 2])
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = -(np.array([47, 47, 1]) / 2) * size
    return density, affine


def phantom_mass(shape: str, thickness_cm: float, view: View) -> np.ndarray:
    """g/cm2 along every ray by closed forms: the chord of a box or of an ellipse, cut at the ends of z."""
    half = np.array([SIDE_MM[shape], 10 * thickness_cm, SIDE_MM[shape]]) / 2
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


def coarse(image: np.ndarray) -> np.ndarray:
    edges = np.linspace(0, PIXELS, BINS + 1).astype(int)
    return block_mean(image, edges, edges)


def model(case: Case, parameters: np.ndarray) -> np.ndarray:
    return np.maximum(coarse(kernel_scatter(case.mass, case.primary, case.view, case.gap_mm, parameters)), 1e-12)


def fit(cases: list[Case]) -> np.ndarray:
    def errors(parameters: np.ndarray) -> np.ndarray:
        residuals = []
        for case in cases:
            image = model(case, parameters)
            bins = np.log(image / case.truth) / np.hypot(BIN_ERROR, case.noise)
            mean_noise = 1 / np.sqrt((case.noise**-2.0).sum())
            mean = np.log(image.mean() / case.truth.mean()) / np.hypot(MEAN_ERROR, mean_noise)
            residuals += [bins.ravel() / BINS, [mean]]
        return np.concatenate(residuals)

    start = [1.0, 0.5, 0.4, 0.1, 0.3, 1.2, 0.6]
    bounds = ([0, 0, 0, 0, 0.02, 0.2, 0], [5, 2, 2, 2, 1.0, 5.0, 1])
    return least_squares(errors, start, bounds=bounds, loss="soft_l1", max_nfev=15).x


def mean_ratios(cases: list[Case], parameters: np.ndarray) -> np.ndarray:
    return np.array([model(case, parameters).mean() / case.truth.mean() for case in cases])


def body_ratios(cases: list[Case], parameters: np.ndarray) -> np.ndarray:
    """Medians of model / Monte Carlo over the bins behind the body."""
    return np.array([np.median((model(c, parameters) / c.truth)[coarse(c.primary) < BEHIND_BODY]) for c in cases])


def main(paths: list[str]) -> None:
    rows, means, bodies = [], [], []
    for seed, name in enumerate(SPECTRA):
        spectrum = load_spectrum(name)
        cases = phantom_cases(spectrum, seed)
        found = fit(cases)
        logs = np.log(mean_ratios(cases, found))
        mean_kev = np.average(spectrum.energy_kev, weights=spectrum.fluence)
        values = [mean_kev, *found, np.sqrt((logs**2).mean()), np.exp(np.abs(logs).max())]
        rows.append("\t".join([name, *(f"{value:.5f}" for value in values)]))
        print(rows[-1], flush=True)
        for path in paths:
            patient = patient_cases(Path(path), spectrum, seed)
            means.append(mean_ratios(patient, found))
            bodies.append(body_ratios(patient, found))
            print(path, "mean", means[-1].round(2), "behind the body", bodies[-1].round(2), flush=True)
    checked = "none"
    if paths:
        names = ", ".join(Path(path).name for path in paths)
        checked = (
            f"{names}, in PA and LAT at SOD / SDD {PATIENT_SOD_SDD_MM} mm: kernel / Monte Carlo {np.min(means):.2f} to "
            f"{np.max(means):.2f} in an image's mean, {np.min(bodies):.2f} to {np.max(bodies):.2f} "
            "in the median behind the body"
        )
    lines = [
        "# made by resources/attenuation/fit_scatter.py",
        f"# fitted: soft tissue {THICKNESS_CM} cm thick, {GAP_MM} mm before the detector, in fields of {SHAPE_AND_FIELD_MM} mm",
        f"# checked, not fitted: {checked}",
        "# narrow, wide: sigma / distance of the middle to the detector",
        "# rms_error of the logarithm of a phantom image's mean, worst_factor of that mean",
        "\t".join(["spectrum", "mean_kev", *PARAMETERS, "rms_error", "worst_factor"]),
    ]
    (Path(__file__).parent / "scatter_kernel.tsv").write_text("\n".join([*lines, *rows]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
