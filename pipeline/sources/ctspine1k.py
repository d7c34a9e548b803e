"""CTSpine1K: spine CTs of four collections with every visible vertebra labelled. Nothing of it has a stable address.

Get the raw files (not the loading script, which is a program) and name their folder as `archives`. Expected in it:
rawdata/volumes/<collection>/<name>.nii.gz, rawdata/labels/<collection>/<name>_seg.nii.gz, data_split.txt if you have it.
A CT of VerSe is left out: VerSe brings it under its own licence. Known bad: label errors in issue 15 of its repository.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pipeline.errors import CaseError, UserError
from pipeline.patients import is_case_id
from pipeline.sources.contract import Edition, Source, SourceCase
from pipeline.sources.shelf import Shelf

_SECTION = re.compile(r"\W*(trainset|test_public|test_private)\b", re.IGNORECASE)
_SPLITS = {"trainset": "train", "test_public": "validation", "test_private": "test"}


def list_cases(edition: Edition, shelf: Shelf) -> list[SourceCase]:
    """CTs that have a mask; the public test set of data_split.txt is our validation split, the private one our test split."""
    if not shelf.given:
        raise UserError(
            f"CTSpine1K cannot be downloaded by a program; its folder must be given as `archives`. {__doc__}"
        )
    splits = {}
    for path in sorted(shelf.given.rglob("data_split.txt")):
        splits |= read_splits(path.read_text(encoding="utf-8"))
    masks = {path.name.removesuffix("_seg.nii.gz"): path for path in sorted(shelf.given.rglob("labels/*/*_seg.nii.gz"))}
    cases = []
    for ct in sorted(shelf.given.rglob("volumes/*/*.nii.gz")):
        name = ct.name.removesuffix(".nii.gz")
        if name not in masks or "verse" in ct.parent.name.lower():
            continue
        case = name if is_case_id(name) else "ctspine-" + hashlib.sha256(name.encode()).hexdigest()[:12]
        files = {"ct": str(ct.resolve()), "label": str(masks[name].resolve())}
        cases.append(SourceCase(case, name, splits.get(name, ""), files))
    return cases


def read_splits(text: str) -> dict[str, str]:
    """Name of a CT -> split, from lines of names below headings that name a set."""
    splits, current = {}, ""
    for line in text.splitlines():
        heading = _SECTION.match(line)
        current = _SPLITS[heading[1].lower()] if heading else current
        for word in re.findall(r"[\w.-]+(?=\.nii)", line):
            splits[word.removesuffix("_seg")] = current
    return splits


def read_case(edition: Edition, shelf: Shelf, case: SourceCase, folder: Path) -> dict:
    """The user's files where they lie."""
    for path in case.files.values():
        if not Path(path).exists():
            reason = "a file of this case is no longer where it was when the cases were listed"
            raise CaseError("E_MISSING", reason, Path(case.files["ct"]))
    return dict(case.files)


SOURCE = Source(
    about="CTSpine1K, 1005 spine CTs, vertebrae; no stable address: download it by hand, then name its folder as archives",
    keys=("cases", "limit", "split", "version", "archives"),
    needs=("archives",),
    editions={
        "1": Edition(
            dataset="ctspine1k",
            version="1",
            doi="10.48550/arXiv.2105.14711",
            license="CC-BY-NC-SA-4.0",
            attribution="CTSpine1K (Deng et al. 2021, arXiv:2105.14711)",
            mixing="only with what may be shared alike and not sold (CC-BY-NC-SA): not with VerSe; patients of COLONOG and "
            "MSD are also in CTPelvic1K and others",
            label_scheme="ctspine1k",
            files=(),
            list_cases=list_cases,
            read_case=read_case,
        )
    },
)
