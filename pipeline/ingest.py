"""Stage ingest: read a CT as it came, check it, and put it onto the experiment's cube in RAS millimetres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Real
from numpy import ndarray

from pipeline.errors import CaseError, UserError
from pipeline.files import array_sha256
from pipeline.label import source_labels
from pipeline.nifti import save_nifti
from pipeline.patients import subject_key
from pipeline.read import read_volume
from pipeline.records import read_record, relative, run_case
from pipeline.regions import Labelled, cut_out, find_region, to_record
from pipeline.resample import HU_RANGE, cube_affine, resample_ct, to_closest_ras

_FILES = ("source_ct", "source_label")


@dataclass(frozen=True)
class _Scan:
    """A CT as it came, turned to RAS, with its labels where the region follows them, and what its records say of it."""

    data_hu: Real[ndarray, "i j k"]
    affine: Float[ndarray, "4 4"]
    labels: Labelled | None
    entries: dict


def ingest(
    record_path: Path,
    folder: Path,
    *,
    cube: int,
    spacing_mm: float,
    region: str = "cube",
    along: tuple[str, ...] = (),
    strict: bool = False,
) -> dict:
    """CT -> `folder`/ct.nii.gz, int16 HU on a cube of `cube` voxels of `spacing_mm`, centred on the CT or its region.

    `region` and `along`, the structures or the vertebra that it follows: pipeline.regions. `strict`: read_volume.
    """
    known = _check(record_path, cube, spacing_mm)

    def load() -> _Scan:
        return _load(record_path.parent, known, region, strict)

    return _ingest(known, folder, load, cube, spacing_mm, region, list(along))


def ingest_vertebrae(
    record_path: Path, folder: Path, vertebrae: Sequence[str], *, cube: int, spacing_mm: float, strict: bool = False
) -> list[dict]:
    """Each vertebra (L1, ...) of a CT as a case of its own, `folder`-L1; the CT is read once.

    A CT that cannot be used, or that lacks a vertebra, leaves a record with the reason for each of them.
    """
    known = _check(record_path, cube, spacing_mm)
    load = cache(lambda: _load(record_path.parent, known, "vertebra", strict))
    records = []
    for name in vertebrae:
        own = {**known, "case": f"{known['case']}-{name}", "scan": known["case"]}
        place = folder.with_name(f"{folder.name}-{name}")
        records.append(_ingest(own, place, load, cube, spacing_mm, "vertebra", [f"vertebrae_{name}"]))
    return records


def _check(record_path: Path, cube: int, spacing_mm: float) -> dict:
    """The record that fetch or segment left; UserError for one of another stage, or a grid that is none."""
    known = read_record(record_path)
    if known["status"] == "ok":
        read_record(record_path, "fetch", "segment")
    if cube < 2 or not 0 < spacing_mm < np.inf:
        raise UserError(
            f"--cube {cube} and --spacing-mm {spacing_mm} make no grid; expected at least 2 voxels of more than 0 mm."
        )
    return known


def _load(place: Path, known: dict, region: str, strict: bool) -> _Scan:
    source = (place / known["ct"]).resolve()
    label = (place / known["label"]).resolve() if known["label"] else None
    volume = read_volume(source, strict=strict, assume_orientation=known.get("assume_orientation", ""))
    named = volume.subject and not known.get("subject_given")
    data, affine = to_closest_ras(volume.data, volume.affine)
    labels = None
    if region != "cube":
        found = source_labels(known, label, volume.data.shape, volume.affine)
        if found is None:
            raise CaseError("E_REGION", f"the case brings no labels, and the region {region} is cut along them")
        labels = Labelled(*found)
    entries = {
        "source_ct": source,
        "source_label": label,
        "source_affine": volume.affine.tolist(),
        "source_shape": list(volume.data.shape),
        "source_sha256": volume.source_sha256,
        "clipped_voxels": int((volume.data > HU_RANGE[1]).sum()),
        "patient_key": subject_key(known["dataset"], volume.subject) if named else "",
        "flags": sorted(volume.flags),
    }
    return _Scan(data, affine, labels, entries)


def _ingest(
    known: dict,
    folder: Path,
    load: Callable[[], _Scan],
    cube: int,
    spacing_mm: float,
    region: str,
    along: list[str],
) -> dict:
    def work(folder: Path) -> dict:
        scan = load()
        data, affine, shown = scan.data_hu, scan.affine, {}
        if scan.labels is None:
            target = cube_affine(data.shape, affine, cube=cube, spacing_mm=spacing_mm)
        else:
            found = find_region(region, scan.labels, along, cube=cube, spacing_mm=spacing_mm)
            data, affine = cut_out(data, scan.labels, found)
            target, shown = found.target, {"region": to_record(region, found)}
        ct = resample_ct(data, affine, target, cube)
        save_nifti(folder / "ct.nii.gz", ct, target)
        files = {key: path and relative(path, folder) for key, path in scan.entries.items() if key in _FILES}
        return {
            "ct": "ct.nii.gz",
            "ct_sha256": array_sha256(ct),
            "affine": target.tolist(),
            "spacing_mm": spacing_mm,
            **scan.entries,
            **files,
            **shown,
        }

    return run_case("ingest", known, folder, work)
