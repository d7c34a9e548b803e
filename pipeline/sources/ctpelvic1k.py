"""CTPelvic1K, the two parts that bring their CTs: 6 (CLINIC) and 7 (CLINIC-metal); sacrum, hips, lumbar spine.

Descriptions of the labels disagree on which of 2 and 3 is the left hip: each case is decided by where the hips are.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from pipeline.archives import unpack_once
from pipeline.errors import CaseError
from pipeline.records import relative
from pipeline.sources.contract import Edition, Source, SourceCase
from pipeline.sources.shelf import RemoteFile, Shelf

_WANTED = r"(?:[^/]+/)*(?:dataset[67]_)?CLINIC_[A-Za-z0-9_]+\.nii\.gz"
_CT = re.compile(r"(?:dataset[67]_)?(CLINIC_\w+)_data\.nii\.gz")
_MASK = re.compile(r"(?:dataset[67]_)?(CLINIC_\w+)_mask_4label\.nii\.gz")
_HOST = "https://zenodo.org/records/4588403/files"


def list_cases(edition: Edition, shelf: Shelf) -> list[SourceCase]:
    """Every CT, with its mask where there is one; each is a patient of its own, and there is no official split."""
    cts, masks = {}, {}
    for file in edition.files:
        for name in _unpacked(shelf, file):
            for pattern, found in ((_CT, cts), (_MASK, masks)):
                if match := pattern.fullmatch(name):
                    found[match[1]] = f"{file.name}/{name}"
    return [SourceCase(case, case, "", {"ct": ct, "label": masks.get(case, "")}) for case, ct in cts.items()]


def _unpacked(shelf: Shelf, file: RemoteFile) -> dict[str, Path]:
    """The files of an archive beside it: a tar.gz would have to be read from its start for every case."""
    return unpack_once(shelf.get(file), _WANTED, shelf.folder / file.name.removesuffix(".tar.gz"))


def read_case(edition: Edition, shelf: Shelf, case: SourceCase, folder: Path) -> dict:
    """The unpacked files where they lie, and which of the hip labels is left."""
    found = {}
    for role, place in case.files.items():
        archive, _, name = place.partition("/")
        found[role] = (
            next(_unpacked(shelf, file)[name] for file in edition.files if file.name == archive) if place else None
        )
    try:
        names = hip_names(found["label"]) if found["label"] else {}
    except CaseError as error:
        raise CaseError(error.code, error.reason, found["ct"]) from None
    return {
        "ct": relative(found["ct"].absolute(), folder.absolute()),
        "label": relative(found["label"].absolute(), folder.absolute()) if found["label"] else None,
        "label_names": {str(value): name for value, name in names.items()},
    }


def hip_names(mask: Path) -> dict[int, str]:
    """Names of the ids 1 to 4, the hip on the patient's right being the one with the larger x in RAS."""
    from pipeline.read import read_label

    volume = read_label(mask)
    x_mm = {value: _mean_x_mm(volume.data == value, volume.affine) for value in (1, 2, 3, 4)}
    two, three = x_mm[2], x_mm[3]
    middle = x_mm[1] if x_mm[1] is not None else x_mm[4]
    if two is None and three is None:
        return {1: "sacrum", 4: "lumbar_spine"}
    if two is None or three is None:
        if middle is None:
            raise CaseError("E_LR_INCONSISTENT", "only one hip is labelled and nothing tells which side it is on")
        two, three = (middle if two is None else two), (middle if three is None else three)
    right, left = (2, 3) if two > three else (3, 2)
    return {1: "sacrum", right: "hip_right", left: "hip_left", 4: "lumbar_spine"}


def _mean_x_mm(inside: np.ndarray, affine: np.ndarray) -> float | None:
    voxels = np.argwhere(inside)
    return float(affine[0, :3] @ voxels.mean(axis=0) + affine[0, 3]) if len(voxels) else None


def _file(name: str, md5: str, sha256: str) -> RemoteFile:
    return RemoteFile(f"{name}.tar.gz", (f"{_HOST}/{name}.tar.gz",), md5=md5, sha256=sha256)


SOURCE = Source(
    about="CTPelvic1K datasets 6 and 7, 178 pelvis CTs (117 labelled)",
    editions={
        "6+7": Edition(
            dataset="ctpelvic1k",
            version="6+7",
            doi="10.5281/zenodo.4588403",
            license="LicenseRef-CTPelvic1K",
            attribution="CTPelvic1K (Liu et al., International Journal of Computer Assisted Radiology and Surgery 2021, "
            "doi:10.1007/s11548-021-02363-8)",
            mixing="with nothing before you have read its terms at doi:10.5281/zenodo.4588403: they were not verified here",
            label_scheme="ctpelvic1k",
            files=(
                _file(
                    "CTPelvic1K_dataset6_data",
                    "6b6121e3094cb97bc452db99dd1abf56",
                    "9b8f4747d256483062aa937eb990890e59954d8be74966edd982a6dcf3f4394e",
                ),
                _file(
                    "CTPelvic1K_dataset6_Anonymized_mask",
                    "7696eb7c4da91f989d6842d7b422efd9",
                    "382b0780bcbf68536631b14e9d2a42a0bccb6fc3c30c9598078ddfa0e574bf95",
                ),
                _file(
                    "CTPelvic1K_dataset7_data", "", "9b71fdf37c9bbb7bf99b95ea577f4bac24f9c393644e44287f59aad0b52a9cbc"
                ),
                _file(
                    "CTPelvic1K_dataset7_mask", "", "4b85e4eb7300e77ce094329933d032a88183f4f0ec65cde95e4162074bb7cca3"
                ),
            ),
            list_cases=list_cases,
            read_case=read_case,
        )
    },
)
