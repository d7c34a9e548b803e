"""TotalSegmentator's public training data: 1228 CTs (1.5 mm) with 117 structures each, one binary mask file per structure.

Known bad: #461 (136 CTs that ITK cannot open; read here), #245 #299 #268 #394 (vertebrae of one CT mixed up).
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from pipeline.archives import list_members, read_members
from pipeline.errors import UserError
from pipeline.files import publish
from pipeline.sources.contract import Edition, Source, SourceCase
from pipeline.sources.shelf import RemoteFile, Shelf
from pipeline.structures import load_scheme

_SCHEME = "totalsegmentator_v2"
_MEMBER = r"((?:[^/]+/)?)(?:meta\.csv|(s\d{4})/(?:ct|segmentations/([A-Za-z0-9_]+))\.nii\.gz)"
_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_V1 = "version 1 has 104 classes under other ids and is superseded; use version 2.0.1"
_V200 = (
    "version 2.0.0 has wrong voxels in s0184, s0224, s0830, s0992 and impossible HU in s0864 (wasserth/TotalSegmentator "
    "issue 193); use version 2.0.1"
)
_REFUSED_MD5 = {"f0fbb3f91d9d99f2169863545f577b30": _V1, "fd65f71cf3ef78c67a3740909ecef674": _V200}


def list_cases(edition: Edition, shelf: Shelf) -> list[SourceCase]:
    """Every folder with a ct.nii.gz; the split is that of meta.csv."""
    archive = shelf.get(edition.files[0])
    cases: dict[str, str] = {}
    known, meta = set(load_scheme(edition.label_scheme).values()), ""
    for member in list_members(archive, _MEMBER):
        prefix, case, mask = re.fullmatch(_MEMBER, member.name).groups()
        if mask and mask not in known:
            raise UserError(f"{archive.name} holds a mask {mask!r}, which version {edition.version} does not have.")
        if not case:
            meta = member.name
        elif not mask:
            cases[case] = prefix
    splits = _splits(archive, meta) if meta else {}
    return [SourceCase(case, case, splits.get(case, ""), {"prefix": prefix}) for case, prefix in cases.items()]


def _splits(archive: Path, meta: str) -> dict[str, str]:
    ((_, content),) = read_members(archive, [meta])
    rows = csv.DictReader(content.decode("utf-8-sig").splitlines(), delimiter=";")
    if not {"image_id", "split"} <= set(rows.fieldnames or ()):
        raise UserError(f"{archive.name}: {meta} has no columns image_id and split. It is not the published file.")
    return {row["image_id"]: _SPLITS.get(row["split"], "") for row in rows}


def read_case(edition: Edition, shelf: Shelf, case: SourceCase, folder: Path) -> dict:
    """The CT as it is, and its masks as one label map."""
    from pipeline.sources.masks import merge_masks

    ids = {name: value for value, name in load_scheme(edition.label_scheme).items()}
    place = f"{case.files['prefix']}{case.id}/"
    masks = {f"{place}segmentations/{name}.nii.gz": value for name, value in ids.items()}
    members = read_members(shelf.get(edition.files[0]), [f"{place}ct.nii.gz", *masks])
    _, ct = next(members)
    with publish(folder / "ct.nii.gz") as private:
        private.write_bytes(ct)
    label = merge_masks(ct, ((masks[name], data) for name, data in members))
    with publish(folder / "label.nii.gz") as private:
        private.write_bytes(label)
    return {"ct": "ct.nii.gz", "label": "label.nii.gz"}


def _edition(version: str, doi: str, file: RemoteFile) -> Edition:
    return Edition(
        dataset="totalsegmentator",
        version=version,
        doi=doi,
        license="CC-BY-4.0",
        attribution="TotalSegmentator dataset (Wasserthal et al., Radiology: Artificial Intelligence 2023, "
        "doi:10.1148/ryai.230024)",
        mixing="with anything that asks for attribution only; the small edition is part of the full one",
        label_scheme=_SCHEME,
        files=(file,),
        list_cases=list_cases,
        read_case=read_case,
    )


_FULL = RemoteFile(
    "Totalsegmentator_dataset_v201.zip",
    ("https://zenodo.org/records/10047292/files/Totalsegmentator_dataset_v201.zip",),
    size=23_581_218_285,
    md5="fe250e5718e0a3b5df4c4ea9d58a62fe",
    refused_md5=_REFUSED_MD5,
)
_SMALL = RemoteFile(
    "Totalsegmentator_dataset_small_v201.zip",
    ("https://zenodo.org/records/10047263/files/Totalsegmentator_dataset_small_v201.zip",),
    size=3_244_617_817,
    md5="6b5524af4b15e6ba06ef2d700c0c73e0",
    refused_md5=_REFUSED_MD5,
)
EDITIONS = {
    "2.0.1": _edition("2.0.1", "10.5281/zenodo.10047292", _FULL),
    "2.0.1-small": _edition("2.0.1-small", "10.5281/zenodo.10047263", _SMALL),
}
SOURCE = Source(
    about="TotalSegmentator training data, 1228 CTs (small: 102), 117 structures; 23.6 GB (small: 3.2 GB)",
    editions=EDITIONS,
    refused={"1": _V1, "2.0.0": _V200},
)
