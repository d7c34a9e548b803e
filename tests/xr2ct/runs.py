"""Reconstructions of a shard, written by hand as `xr2ct reconstruct` documents them."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from xr2ct.shards import Case, Shard


def write_run(folder: Path, shard: Shard, change=lambda case: (case.ct_hu, case.label), **index) -> Path:
    """`change` gives (ct_hu, label or None) of a case; returns the index.json."""
    cases = []
    for i in range(len(shard)):
        case = shard.case(i)
        entry = {"case": case.id, "split": case.split, "dataset": case.dataset, "subject_key": case.subject_key}
        entry |= {"derived_from": case.derived_from, "seconds": 0.1}
        for name, array in zip(("ct", "label"), change(case), strict=True):
            entry[name] = None if array is None else f"{case.id}/{name}.nii.gz"
            if array is not None:
                write_nifti(folder / entry[name], array, case.affine)
        cases.append(entry)
    content = {
        "schema": "xr2ct/reconstruction",
        "schema_version": "1.0.0",
        "run": folder.name,
        "model": "mean",
        "simulator": "parallel",
        "window_hu": [-1000, 1500],
        "structures": list(shard.structures),
        "result_version": 1,
        "cases": cases,
    }
    path = folder / "index.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | index))
    return path


def write_nifti(path: Path, array_zyx: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.ascontiguousarray(array_zyx.T), affine), path)


def brighter(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The true CT 50 HU too bright, labels as they are."""
    return case.ct_hu + np.int16(50), case.label
