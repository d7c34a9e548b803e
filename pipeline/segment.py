"""Stage segment: labels by TotalSegmentator for a CT that brings none, on its own voxels, before anything is resampled."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tqdm import tqdm

from pipeline.errors import CaseError
from pipeline.files import write_json, write_table
from pipeline.nifti import save_nifti
from pipeline.parts import content_sha256
from pipeline.records import read_record, relative, run_case
from pipeline.structures import load_scheme, wanted_classes
from pipeline.versions import RESULT_VERSION

SCHEME = "totalsegmentator_v2"
LABEL, ORIGIN = "label.nii.gz", "label.json"


def segment_case(
    record_path: Path, folder: Path, *, structures: list[str], fast: bool, all_classes: bool, device: str
) -> dict:
    """Record of a fetched CT with `label`, which is its own where it has one, else `folder`/label.nii.gz.

    The network is asked for the classes of `structures` alone, unless for `all_classes`; `label_names` are those that it
    was asked for: what is not among them is not annotated.
    """
    known = _fetched(record_path)

    def work(folder: Path) -> dict:
        ct = _ct(record_path, known)
        if known["label"]:
            label = (record_path.parent / known["label"]).resolve()
            return {"ct": relative(ct, folder), "label": relative(label, folder)}
        scheme = load_scheme(SCHEME)
        wanted = None if all_classes else wanted_classes(scheme, structures)
        origin = _make_label(known, ct, folder, classes=wanted, fast=fast, device=device)
        return {
            "ct": relative(ct, folder),
            "label": LABEL,
            "label_scheme": SCHEME,
            "label_names": {str(value): name for value, name in scheme.items() if wanted is None or name in wanted},
            "label_remap": {},
            "labeller": origin["labeller"],
        }

    return run_case("segment", known, folder, work)


def segment_ahead(
    record_paths: list[Path],
    out: Path,
    table: Path,
    *,
    structures: list[str],
    fast: bool,
    all_classes: bool,
    device: str,
) -> None:
    """Make the label maps that `segment_case` will look for in `out`/<case>, with the networks loaded once for all.

    A CT that cannot be labelled is left to `segment_case`, which sets it aside. `table` tells which were made.
    """
    wanted = None if all_classes else wanted_classes(load_scheme(SCHEME), structures)
    rows = []
    for path in tqdm(record_paths, desc="segment", unit="CT"):
        known = _fetched(path)
        row = {"case": known["case"], "label": "its own"}
        if known["status"] != "ok":
            row["label"] = "set aside"
        elif not known["label"]:
            try:
                folder = out / known["case"]
                folder.mkdir(parents=True, exist_ok=True)
                _make_label(known, _ct(path, known), folder, classes=wanted, fast=fast, device=device)
                row["label"] = "made"
            except CaseError as error:
                print(f"{known['case']}: {error.code}: {error.reason}", file=sys.stderr)
                row["label"] = error.code
        rows.append(row)
    write_table(table, ("case", "label"), rows)


def _fetched(path: Path) -> dict:
    """The record of a fetched CT, also of one that is set aside."""
    known = read_record(path)
    return read_record(path, "fetch") if known["status"] == "ok" else known


def _ct(record_path: Path, known: dict) -> Path:
    return (record_path.parent / known["ct"]).resolve()


def _make_label(known: dict, ct: Path, folder: Path, *, classes: list[str] | None, fast: bool, device: str) -> dict:
    """`folder`/label.nii.gz and where it comes from; the network is not asked again for what it has answered."""
    from pipeline.totalsegmentator import package_version, segment

    origin = {
        "ct_sha256": content_sha256(ct) if ct.exists() else None,
        "assume_orientation": known.get("assume_orientation", ""),
        "classes": classes,
        "labeller": f"TotalSegmentator {package_version()}, task total{', fast' if fast else ''}",
        "result_version": RESULT_VERSION["segment"],
    }
    if not ((folder / LABEL).exists() and _origin(folder) == origin):
        (folder / ORIGIN).unlink(missing_ok=True)
        ids, affine = segment(
            ct, fast=fast, device=device, classes=classes, assume_orientation=origin["assume_orientation"]
        )
        save_nifti(folder / LABEL, ids.T, affine)
        write_json(folder / ORIGIN, origin)
    return origin


def _origin(folder: Path) -> dict | None:
    """Where the label map in `folder` comes from, None where that is not told."""
    try:
        return json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
