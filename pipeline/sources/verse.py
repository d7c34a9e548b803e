"""VerSe'19 and '20: spine CTs with every vertebra labelled, in the subject-based layout, '19 and '20 without their overlap.

Vertebrae that the edge of a scan cuts are not labelled. 26 and 27 (sacrum, coccyx) do not occur. Every scan has its own
orientation and spacing.
"""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.archives import list_members, read_members
from pipeline.files import publish
from pipeline.sources.contract import Edition, Source, SourceCase
from pipeline.sources.shelf import RemoteFile, Shelf

_CT = r"(?:[^/]+/)*rawdata/(sub-[A-Za-z0-9]+)/((?:\1)(?:_[A-Za-z0-9]+-[A-Za-z0-9]+)*)_ct\.nii\.gz"
_MASK = r"(?:[^/]+/)*derivatives/(sub-[A-Za-z0-9]+)/((?:\1)(?:_[A-Za-z0-9]+-[A-Za-z0-9]+)*)_seg-vert_msk\.nii\.gz"
_SPLITS = ("training", "validation", "test")
_HOST = "https://s3.bonescreen.de/public/VerSe-complete"


def list_cases(edition: Edition, shelf: Shelf) -> list[SourceCase]:
    """Scans with a mask, each once: by verse id across the years, and by the content of the CT.

    A patient whose scans lie in '19 and '20 keeps the split of '20, whose archives come first.
    """
    cases: list[SourceCase] = []
    year_of_id, scans, contents, split_of_patient = {}, set(), set(), {}
    for file in edition.files:
        archive = shelf.get(file)
        masks = {re.fullmatch(_MASK, member.name)[2]: member.name for member in list_members(archive, _MASK)}
        for member in list_members(archive, _CT):
            subject, name = re.fullmatch(_CT, member.name).groups()
            scan = re.search(r"_split-([A-Za-z0-9]+)", name)
            verse_id = scan[1] if scan else subject.removeprefix("sub-")
            newest = year_of_id.setdefault(verse_id, _year(file)) == _year(file)
            if not newest or name not in masks or name in scans or member.key in contents:
                continue
            scans.add(name)
            contents.add(member.key)
            split = split_of_patient.setdefault(subject, _split_of_archive(file))
            files = {"archive": file.name, "ct": member.name, "label": masks[name]}
            cases.append(SourceCase(name, subject, split, files))
    return cases


def _year(file: RemoteFile) -> str:
    return file.name.removeprefix("dataset-verse")[:2]


def _split_of_archive(file: RemoteFile) -> str:
    (name,) = (split for split in _SPLITS if file.name.removesuffix(".zip").endswith(split))
    return "train" if name == "training" else name


def read_case(edition: Edition, shelf: Shelf, case: SourceCase, folder: Path) -> dict:
    """CT and mask as they are."""
    (file,) = (file for file in edition.files if file.name == case.files["archive"])
    members = read_members(shelf.get(file), [case.files["ct"], case.files["label"]])
    for name, (_, content) in zip(("ct.nii.gz", "label.nii.gz"), members, strict=True):
        with publish(folder / name) as private:
            private.write_bytes(content)
    return {"ct": "ct.nii.gz", "label": "label.nii.gz"}


def _edition(version: str, *years: int) -> Edition:
    return Edition(
        dataset="verse",
        version=version,
        doi="10.1016/j.media.2021.102166",
        license="CC-BY-SA-4.0",
        attribution="VerSe (Sekuboyina et al., Medical Image Analysis 2021, doi:10.1016/j.media.2021.102166; Loeffler et al., "
        "Radiology: Artificial Intelligence 2020, doi:10.1148/ryai.2020190138; Liebl et al., Scientific Data 2021, "
        "doi:10.1038/s41597-021-01060-0)",
        mixing="only with what may be shared alike (CC-BY-SA-4.0): not with CTSpine1K",
        label_scheme="verse",
        files=tuple(
            RemoteFile(name := f"dataset-verse{year}{split}.zip", (f"{_HOST}/{name}",))
            for year in years
            for split in _SPLITS
        ),
        list_cases=list_cases,
        read_case=read_case,
    )


SOURCE = Source(
    about="VerSe'19 and '20, 374 spine CTs of 355 patients, vertebrae; 30 GB in six archives",
    editions={"2020+2019": _edition("2020+2019", 20, 19), "2020": _edition("2020", 20), "2019": _edition("2019", 19)},
)
