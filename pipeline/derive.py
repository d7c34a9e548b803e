"""Stage derive: a new shape of a labelled training patient, CT and labels deformed by the same field."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from pipeline.deform import Strength, derive_case
from pipeline.errors import UserError
from pipeline.files import array_sha256
from pipeline.label import CUT, label_status
from pipeline.nifti import load_nifti, save_nifti
from pipeline.records import read_record, run_case


def derive(
    parent_path: Path, folder: Path, *, case: str, split: str, number: int, seed: int, strength: Strength
) -> dict:
    """Write derived case `number` of a parent; the same seed, parent and number give the same bytes."""
    parent = read_record(parent_path)
    if parent["status"] != "ok" or not any(parent.get("label_status", [0])[1:]):
        raise UserError(
            f"derived cases are asked of {parent['case']}, which has no labels; expected a labelled CT. "
            "Choose another parent under `derive`, or give this one labels."
        )
    if number < 0 or strength.control_spacing_mm <= 0:
        raise UserError(
            f"number {number}, control_spacing_mm {strength.control_spacing_mm:g}; expected 0 or more, above 0."
        )
    known = {**parent, "case": case, "split": split, "derived_from": parent["case"]}

    def work(folder: Path) -> dict:
        ct_parent, label_parent = (
            load_nifti((parent_path.parent / parent[name]).resolve()) for name in ("ct", "label")
        )
        rng = np.random.default_rng([seed, zlib.crc32(parent["case"].encode()), number])
        ct, label, field = derive_case(
            ct_parent, label_parent, spacing_mm=parent["spacing_mm"], strength=strength, rng=rng
        )
        save_nifti(folder / "ct.nii.gz", ct, np.array(parent["affine"]))
        save_nifti(folder / "label.nii.gz", label, np.array(parent["affine"]))
        known_before = parent["label_status"]
        vanished = set(np.unique(label_parent).tolist()) - set(np.unique(label).tolist())
        cut = {value for value, status in enumerate(known_before) if status == CUT} | vanished
        status = label_status(label, cut, [value > 0 for value in known_before[1:]])
        return {
            "ct": "ct.nii.gz",
            "label": "label.nii.gz",
            "ct_sha256": array_sha256(ct),
            "label_status": status.tolist(),
            "max_displacement_mm": round(field.max_displacement_mm, 3),
            "min_jacobian": round(field.min_jacobian, 4),
        }

    return run_case("derive", known, folder, work)
