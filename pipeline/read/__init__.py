"""CTs and label maps as they come: one reader per format, every defect has a reason code, nothing is repaired silently.

A file is recognised by its first bytes, never by its name; a folder is a DICOM series.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import CaseError
from pipeline.flags import CONTRADICTIONS
from pipeline.parts import METAIMAGE_START, content_sha256
from pipeline.read.affine import check_affine
from pipeline.read.dicom import read_dicom
from pipeline.read.field_of_view import check_field_of_view
from pipeline.read.hu import check_hu
from pipeline.read.mha import read_mha
from pipeline.read.nifti import read_nifti
from pipeline.read.nrrd import read_nrrd
from pipeline.read.values import Stored, to_hu, to_ids
from pipeline.read.volume import Volume

__all__ = ["Volume", "read_label", "read_volume"]


def read_volume(path: Path, *, strict: bool = False, assume_orientation: str = "") -> Volume:
    """A CT in HU from NIfTI, NRRD, MetaImage or a folder with a DICOM series; CaseError where it cannot be trusted.

    `strict` also refuses files that contradict themselves, which are otherwise read by a stated rule and flagged.
    `assume_orientation`, as LAS, is for NIfTI files that give none and would be refused: where their axes run to.
    """
    if path.is_dir():
        data, affine, subject, sha256, flags = read_dicom(path)
    else:
        stored, sha256 = _read_file(path, assume_orientation)
        data, replaced = to_hu(stored)
        affine, subject = stored.affine, None
        flags = set(stored.flags) | ({"NONFINITE_FIXED"} if replaced else set())
    flags |= check_affine(affine, data.shape) | check_hu(data) | check_field_of_view(data, affine)
    for flag in sorted(flags & set(CONTRADICTIONS)) if strict else ():
        raise CaseError(CONTRADICTIONS[flag], f"the file contradicts itself ({flag}), and reading is strict")
    return Volume(data, affine, tuple(sorted(flags)), subject, sha256)


def read_label(path: Path, *, assume_orientation: str = "") -> Volume:
    """A label map (int16 ids, 0 background) from a file, on its own affine, possibly that of a cropped box."""
    if path.is_dir():
        raise CaseError("E_NOT_NIFTI", "the label map is a folder; expected a NIfTI, NRRD or MetaImage file")
    stored, sha256 = _read_file(path, assume_orientation)
    data = to_ids(stored)
    flags = set(stored.flags) | check_affine(stored.affine, data.shape, smallest_mm=0.0)
    return Volume(data, stored.affine, tuple(sorted(flags)), None, sha256)


def _read_file(path: Path, assume_orientation: str) -> tuple[Stored, str]:
    try:
        with path.open("rb") as handle:
            magic = handle.read(132)
    except FileNotFoundError:
        raise CaseError("E_MISSING", "the file or folder does not exist") from None
    if magic[128:] == b"DICM":
        raise CaseError("E_NOT_NIFTI", "found a single DICOM file; expected a volume or the folder of the series")
    if METAIMAGE_START.match(magic):
        stored = read_mha(path)
    else:
        stored = read_nrrd(path) if magic.startswith(b"NRRD") else read_nifti(path, assume_orientation)
    return stored, content_sha256(path)
