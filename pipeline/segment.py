"""Stage segment: labels by TotalSegmentator for a CT that brings none, on its own voxels, before anything is resampled."""

from __future__ import annotations

from pathlib import Path

from pipeline.nifti import save_nifti
from pipeline.records import read_record, relative, run_case
from pipeline.structures import load_scheme, wanted_classes

SCHEME = "totalsegmentator_v2"


def segment_case(
    record_path: Path, folder: Path, *, structures: list[str], fast: bool, all_classes: bool, device: str
) -> dict:
    """Record of a fetched CT with `label`, which is its own where it has one, else `folder`/label.nii.gz.

    The network is asked for the classes of `structures` alone, unless for `all_classes`; `label_names` are those that it
    was asked for: what is not among them is not annotated.
    """
    known = read_record(record_path)
    if known["status"] == "ok":
        read_record(record_path, "fetch")

    def work(folder: Path) -> dict:
        ct = (record_path.parent / known["ct"]).resolve()
        if known["label"]:
            label = (record_path.parent / known["label"]).resolve()
            return {"ct": relative(ct, folder), "label": relative(label, folder)}
        from pipeline.totalsegmentator import package_version, segment

        scheme = load_scheme(SCHEME)
        wanted = None if all_classes else wanted_classes(scheme, structures)
        ids, affine = segment(ct, fast=fast, device=device, classes=wanted)
        save_nifti(folder / "label.nii.gz", ids.T, affine)
        return {
            "ct": relative(ct, folder),
            "label": "label.nii.gz",
            "label_scheme": SCHEME,
            "label_names": {str(value): name for value, name in scheme.items() if wanted is None or name in wanted},
            "label_remap": {},
            "labeller": f"TotalSegmentator {package_version()}, task total{', fast' if fast else ''}",
        }

    return run_case("segment", known, folder, work)
