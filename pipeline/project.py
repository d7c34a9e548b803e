"""Stage project: simulate the X-rays of one case."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int16
from numpy import ndarray

from pipeline.chance import generator
from pipeline.files import array_sha256
from pipeline.geometry import View, centre_mm, corners_mm, require_in_beam
from pipeline.nifti import load_nifti
from pipeline.physics.detector import LEAST_INTENSITY, LEAST_PHOTONS, detected_energy, read_out
from pipeline.physics.materials import DECOMPOSITIONS
from pipeline.physics.monoenergetic import HU_TO_MU, mu_water_per_mm
from pipeline.physics.scatter import scatter_signal
from pipeline.physics.spectra import mean_energy_kev
from pipeline.projectors.deepdrr import project_deepdrr
from pipeline.projectors.from_hu import areal_densities, attenuation_integrals
from pipeline.records import read_record
from pipeline.shard_file import Xray
from pipeline.simulators import Simulator, check_volume, stand_views, tube_spectrum
from pipeline.sweeps import draw_angles
from pipeline.xray_file import save_xray


def simulate(
    ct_hu: Int16[ndarray, "z y x"],
    affine: Float[ndarray, "4 4"],
    simulator: Simulator,
    *,
    case: str = "",
    seed: int = 1,
) -> Xray:
    """X-rays of a CT in memory: line integrals -log(I / I0), dimensionless, where I0 is the reading without an object.

    The views turn about the centre of the grid; `affine` maps index (x, y, z, 1) to RAS mm. `case` and `seed` decide
    everything random: angles, quantum noise, Monte Carlo.
    """
    check_volume(ct_hu, affine)
    views = place_views(ct_hu.shape, affine, draw_angles(simulator, case=case, seed=seed))
    if simulator.physics == "realistic":
        image, attributes = _realistic(ct_hu, affine, views, simulator, case, seed)
    else:
        image, attributes = _monoenergetic(ct_hu, affine, views, simulator)
    return Xray(
        views=tuple(view.name for view in views),
        image=image,
        projection=np.stack([view.projection() for view in views]),
        source_mm=np.stack([view.source_mm for view in views]),
        detector_mm=np.stack([view.detector_mm() for view in views]),
        attributes={
            "beam": simulator.beam,
            "backend": simulator.backend,
            "physics": simulator.physics,
            "view_angles": json.dumps(list(simulator.views), sort_keys=True),
            **({"sdd_mm": simulator.sdd_mm, "sod_mm": simulator.sod_mm} if simulator.beam == "cone" else {}),
            **attributes,
        },
    )


def place_views(shape: tuple[int, ...], affine: Float[ndarray, "4 4"], simulator: Simulator) -> list[View]:
    """The simulator's views around the centre of a grid of `shape` (z, y, x); impossible ones are refused."""
    views = stand_views(simulator, centre_mm(shape, affine))
    for view in views:
        require_in_beam(view, corners_mm(shape, affine, beyond=1.0))  # interpolated, it reaches one voxel further
    return views


def _monoenergetic(
    ct_hu: ndarray, affine: ndarray, views: list[View], simulator: Simulator
) -> tuple[Float32[ndarray, "view v u"], dict]:
    image = attenuation_integrals(
        ct_hu, affine, views, beam=simulator.beam, backend=simulator.backend, energy_kev=simulator.energy_kev
    )
    return image, {
        "hu_to_mu": HU_TO_MU,
        "energy_kev": simulator.energy_kev,
        "mu_water_per_mm": mu_water_per_mm(simulator.energy_kev),
        "noise": "none",
        "scatter": "none",
    }


def _realistic(
    ct_hu: ndarray, affine: ndarray, views: list[View], simulator: Simulator, case: str, seed: int
) -> tuple[Float32[ndarray, "view v u"], dict]:
    """A polychromatic tube, three materials, scatter, grid, quantum noise and point spread, in this order."""
    spectrum, decomposition = tube_spectrum(simulator), DECOMPOSITIONS[simulator.materials]
    if simulator.backend == "deepdrr":
        return _deepdrr(ct_hu, affine, views, simulator, seed)
    areal = areal_densities(
        ct_hu, affine, views, beam=simulator.beam, backend=simulator.backend, decomposition=decomposition
    )
    image = np.empty((len(views), *simulator.detector_px), np.float32)
    for number, view in enumerate(views):
        primary, moment = detected_energy(areal[number], spectrum)
        scatter = None
        if simulator.scatter != "none":
            scatter = scatter_signal(
                simulator.scatter,
                ct_hu,
                affine,
                view,
                spectrum,
                decomposition,
                areal[number],
                primary,
                simulator.scatter_photons,
                generator(seed, case, view.name, "scatter"),
            )
        reading = read_out(
            primary,
            moment,
            spectrum,
            photons=simulator.photons,
            scatter=scatter,
            grid=simulator.grid,
            psf_px=simulator.psf_px,
            rng=generator(seed, case, view.name, "noise"),
        )
        image[number] = -np.log(reading)
    return image, {
        "spectrum": spectrum.name,
        "mean_energy_kev": mean_energy_kev(spectrum),
        "materials": decomposition.name,
        "noise": "compound Poisson" if simulator.photons else "none",
        "photons": simulator.photons,
        "psf_px": simulator.psf_px,
        "scatter": simulator.scatter,
        **({"scatter_photons": simulator.scatter_photons} if simulator.scatter == "montecarlo" else {}),
        "grid": simulator.grid,
        "seed": seed,
    }


def _deepdrr(
    ct_hu: ndarray, affine: ndarray, views: list[View], simulator: Simulator, seed: int
) -> tuple[Float32[ndarray, "view v u"], dict]:
    """The real DeepDRR on a GPU; it does its own noise and blur."""
    spectrum, photons = tube_spectrum(simulator).name, int(simulator.photons)
    reading = project_deepdrr(ct_hu, affine, views, spectrum=spectrum, photons=photons, seed=seed)
    floor = LEAST_PHOTONS / photons if photons else LEAST_INTENSITY
    return -np.log(np.maximum(reading, np.float32(floor))), {
        "spectrum": spectrum,
        "materials": simulator.materials,
        "noise": "DeepDRR" if photons else "none",
        "photons": simulator.photons,
        "scatter": "none",
        "seed": seed,
    }


def project(record_path: Path, out: Path, simulator: Simulator, seed: int = 1) -> None:
    """Simulate one case of the workflow and publish its X-rays."""
    record = read_record(record_path, "label", "derive")
    ct = load_nifti((record_path.parent / record["ct"]).resolve())
    if array_sha256(ct) != record["ct_sha256"]:
        raise OSError(f"case {record['case']}: the CT differs from its record; delete its folder and run again")
    save_xray(out, simulate(ct, np.array(record["affine"]), simulator, case=record["case"], seed=seed))
