"""Stage ingest: read a CT as it came, check it, and put it onto the experiment's cube in RAS millimetres."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.files import array_sha256
from pipeline.nifti import save_nifti
from pipeline.patients import subject_key
from pipeline.read import read_volume
from pipeline.records import read_record, relative, run_case
from pipeline.resample import cube_affine, resample_ct, to_closest_ras


def ingest(record_path: Path, folder: Path, *, cube: int, spacing_mm: float) -> dict:
    """CT -> `folder`/ct.nii.gz, int16 HU on a cube of `cube` voxels of `spacing_mm`, centred on the CT."""
    known = read_record(record_path)
    if known["status"] == "ok":
        read_record(record_path, "fetch")
    if cube < 2 or not 0 < spacing_mm < np.inf:
        raise UserError(
            f"--cube {cube} and --spacing-mm {spacing_mm} make no grid; expected at least 2 voxels of more than 0 mm."
        )

    def work(folder: Path) -> dict:
        source = (record_path.parent / known["ct"]).resolve()
        label = (record_path.parent / known["label"]).resolve() if known["label"] else None
        volume = read_volume(source)
        named = volume.subject and not known.get("subject_given")
        data, affine = to_closest_ras(volume.data, volume.affine)
        target = cube_affine(data.shape, affine, cube=cube, spacing_mm=spacing_mm)
        ct = resample_ct(data, affine, target, cube)
        save_nifti(folder / "ct.nii.gz", ct, target)
        return {
            "ct": "ct.nii.gz",
            "ct_sha256": array_sha256(ct),
            "affine": target.tolist(),
            "spacing_mm": spacing_mm,
            "source_ct": relative(source, folder),
            "source_label": relative(label, folder) if label else None,
            "source_affine": volume.affine.tolist(),
            "source_shape": list(volume.data.shape),
            "source_sha256": volume.source_sha256,
            "patient_key": subject_key(known["dataset"], volume.subject) if named else "",
            "flags": sorted(volume.flags),
        }

    return run_case("ingest", known, folder, work)
