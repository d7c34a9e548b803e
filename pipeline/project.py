"""Stage project: simulate the X-rays of one case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int16
from numpy import ndarray

from pipeline.files import array_sha256
from pipeline.geometry import make_view, require_in_beam
from pipeline.nifti import load_nifti
from pipeline.physics import HU_TO_MU, hu_to_mu, mu_water_per_mm
from pipeline.projectors import get_projector
from pipeline.records import read_record
from pipeline.shard_file import Xray
from pipeline.xray_file import save_xray


@dataclass(frozen=True)
class Simulator:
    """One simulator of the config; distances in mm, `detector_px` = (rows, columns)."""

    beam: str
    backend: str
    views: tuple[str | dict, ...]
    detector_px: tuple[int, int]
    pixel_mm: float
    sdd_mm: float
    sod_mm: float
    energy_kev: float


def simulate(ct_hu: Int16[ndarray, "z y x"], affine: Float[ndarray, "4 4"], simulator: Simulator) -> Xray:
    """X-rays of a CT in memory: line integrals -log(I/I0), dimensionless, without noise or scatter.

    The views turn about the centre of the grid; `affine` maps index (x, y, z, 1) to RAS mm.
    """
    far = np.array(ct_hu.shape[::-1]) - 1.0
    isocentre = (affine @ np.append(far / 2, 1.0))[:3]
    corners = np.array(np.meshgrid(*([0.0, size] for size in far), indexing="ij")).reshape(3, -1).T
    project = get_projector(simulator.beam, simulator.backend)
    views = [
        make_view(
            view,
            isocentre,
            beam=simulator.beam,
            detector_px=simulator.detector_px,
            pixel_mm=simulator.pixel_mm,
            sdd_mm=simulator.sdd_mm,
            sod_mm=simulator.sod_mm,
        )
        for view in simulator.views
    ]
    for view in views:
        require_in_beam(view, corners @ affine[:3, :3].T + affine[:3, 3])
    mu = hu_to_mu(ct_hu, simulator.energy_kev)
    return Xray(
        views=tuple(view.name for view in views),
        image=np.stack([project(mu, affine, view) for view in views]).astype(np.float32),
        projection=np.stack([view.projection() for view in views]),
        source_mm=np.stack([view.source_mm for view in views]),
        detector_mm=np.stack([view.detector_mm() for view in views]),
        attributes={
            "beam": simulator.beam,
            "backend": simulator.backend,
            "hu_to_mu": HU_TO_MU,
            "energy_kev": simulator.energy_kev,
            "mu_water_per_mm": mu_water_per_mm(simulator.energy_kev),
            "noise": "none",
            "scatter": "none",
            **({"sdd_mm": simulator.sdd_mm, "sod_mm": simulator.sod_mm} if simulator.beam == "cone" else {}),
        },
    )


def project(record_path: Path, out: Path, simulator: Simulator) -> None:
    """Simulate one case of the workflow and publish its X-rays."""
    record = read_record(record_path, "label", "derive")
    ct = load_nifti((record_path.parent / record["ct"]).resolve())
    if array_sha256(ct) != record["ct_sha256"]:
        raise OSError(f"case {record['case']}: the CT differs from its record; delete its folder and run again")
    save_xray(out, simulate(ct, np.array(record["affine"]), simulator))
