"""A DICOM Segmentation (multi-frame, one frame per segment and slice) as one label map with names, in its own affine.

What people write into it (SegmentLabel, SegmentDescription) is compared with names we know and never handed on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Bool, Float64, Int16, Int64
from numpy import ndarray

from pipeline.errors import CaseError
from pipeline.files import read_table
from pipeline.read.affine import check_affine
from pipeline.read.dicom_series import quiet_pydicom
from pipeline.structures import TABLES, load_scheme

CODES = TABLES.parent / "segment_codes.tsv"
"""SNOMED CT code and side of the structures of TotalSegmentator 1, as IDC's segmentations of NLST use them."""

TAGS = [
    "SOPClassUID", "SegmentationType", "SegmentSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "MaximumFractionalValue",
    "PixelData",
]  # fmt: skip
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
_SCHEMES = ("totalsegmentator_v1", "totalsegmentator_v2")
_SIDES = {"7771000": "left", "24028007": "right"}
_LARGEST_VOXELS = 1 << 31
_SAME_PLACE_MM, _OFF_LATTICE = 0.01, 0.02
_IN_PLANE_MM = 0.1


@dataclass(frozen=True)
class Segmentation:
    """Ids are the file's segment numbers; `affine` maps index (i, j, k, 1) -> RAS mm; `names` has an entry per segment.

    A name is one of resources/labels, or segment_<number> where the file's words and codes mean none of them.
    """

    data: Int16[ndarray, "i j k"]
    affine: Float64[ndarray, "4 4"]
    names: dict[int, str]


@dataclass(frozen=True)
class _Frame:
    segment: int
    position_mm: Float64[ndarray, "3"]
    orientation: Float64[ndarray, "6"]
    spacing_mm: tuple[float, float]
    between_mm: float


def is_dicom_seg(path: Path) -> bool:
    """Whether a file says that it is a DICOM Segmentation."""
    try:
        with path.open("rb") as handle, quiet_pydicom():
            if handle.read(132)[128:] != b"DICM":
                return False
            meta = pydicom.filereader.read_file_meta_info(path)
        return str(meta.get("MediaStorageSOPClassUID", "")) == _SEGMENTATION
    except OSError:
        raise
    except Exception:  # pydicom raises many kinds on damaged files, and their texts quote the tags' values
        return False


def read_dicom_seg(path: Path) -> Segmentation:
    """BINARY, or FRACTIONAL with at least half as inside. Of overlapping segments the smallest wins, of equal the last.

    Slices without a frame are background: writers leave out empty ones.
    """
    dataset, frames = _read(path)
    numbers = {int(item.SegmentNumber): item for item in dataset.SegmentSequence}
    stray = {frame.segment for frame in frames} - set(numbers)
    if (
        stray
        or min(numbers) < 1
        or max(numbers) > np.iinfo(np.int16).max
        or len(numbers) < len(dataset.SegmentSequence)
    ):
        raise CaseError("E_LABEL_VALUES", "the frames of the segmentation name segments that it does not describe once")
    affine, planes = _lattice(frames)
    shape = (int(dataset.Columns), int(dataset.Rows), int(planes.max()) + 1)
    if np.prod(shape, dtype=float) > _LARGEST_VOXELS:
        raise CaseError("E_TOO_LARGE", f"the segmentation spans {shape} voxels, expected at most {_LARGEST_VOXELS}")
    check_affine(affine, shape, smallest_mm=0.0)
    bits = _Pixels(dataset, len(frames))
    of_segment: dict[int, list[int]] = {number: [] for number in numbers}
    seen = set()
    for index, (frame, plane) in enumerate(zip(frames, planes.tolist(), strict=True)):
        if (frame.segment, plane) in seen:
            raise CaseError("E_DICOM_DUPLICATE", f"segment {frame.segment} has two frames at one position")
        seen.add((frame.segment, plane))
        of_segment[frame.segment].append(index)
    sizes = {number: sum(int(bits[index].sum()) for index in found) for number, found in of_segment.items()}
    data = np.zeros(shape, np.int16, order="F")
    for number in sorted(numbers, key=lambda number: (-sizes[number], number)):
        for index in of_segment[number]:
            data[:, :, planes[index]][bits[index].T] = number
    return Segmentation(data, affine, segment_names(numbers))


class _Pixels:
    """Frame by frame (row, column), True inside the segment; binary frames follow each other without a bit between."""

    def __init__(self, dataset: pydicom.Dataset, frames: int):
        self._shape = (int(dataset.Rows), int(dataset.Columns))
        self._count = self._shape[0] * self._shape[1]
        self._binary = dataset.SegmentationType == "BINARY"
        self._half = 0.5 * int(dataset.get("MaximumFractionalValue", None) or 255)
        self._bytes = np.frombuffer(dataset.PixelData, np.uint8)
        expected = -(-frames * self._count // 8) if self._binary else frames * self._count
        if len(self._bytes) < expected:
            raise CaseError("E_TRUNCATED", f"found {len(self._bytes)} bytes of pixels, expected {expected}")

    def __getitem__(self, index: int) -> Bool[ndarray, "row column"]:
        start, end = index * self._count, (index + 1) * self._count
        if not self._binary:
            return (self._bytes[start:end] >= self._half).reshape(self._shape)
        whole = np.unpackbits(self._bytes[start // 8 : -(-end // 8)], bitorder="little")
        return whole[start % 8 : start % 8 + self._count].astype(bool).reshape(self._shape)


def _read(path: Path) -> tuple[pydicom.Dataset, list[_Frame]]:
    """The dataset of a segmentation whose frames are plain, and what is said of each frame."""
    try:
        with quiet_pydicom():
            dataset = pydicom.dcmread(path, specific_tags=TAGS)
            if str(dataset.get("SOPClassUID", "")) != _SEGMENTATION:
                raise CaseError("E_NOT_NIFTI", "found a DICOM file that is no Segmentation (SOP class 66.4)")
            kind, allocated = str(dataset.SegmentationType), int(dataset.BitsAllocated)
            if (kind, allocated) not in (("BINARY", 1), ("FRACTIONAL", 8)):
                raise CaseError("E_DTYPE", "expected a BINARY segmentation of 1 bit or a FRACTIONAL one of 8 bits")
            if str(dataset.file_meta.TransferSyntaxUID) not in _PLAIN:
                raise CaseError("E_DICOM_CODEC", "the segmentation is compressed, expected plain little endian")
            per_frame = dataset.PerFrameFunctionalGroupsSequence
            if len(per_frame) != int(dataset.NumberOfFrames) or not per_frame or not dataset.SegmentSequence:
                raise CaseError("E_HEADER", f"the segmentation describes {len(per_frame)} frames, not the ones it has")
            shared = (dataset.get("SharedFunctionalGroupsSequence", None) or [pydicom.Dataset()])[0]
            _ = dataset.PixelData, dataset.Rows, dataset.Columns
            return dataset, [_frame(item, shared) for item in per_frame]
    except (CaseError, OSError, MemoryError):
        raise
    except Exception:  # pydicom raises many kinds on damaged files, and their texts quote the tags' values
        raise CaseError(
            "E_DICOM_CODEC", "the segmentation is damaged, or its frames lack position, orientation or spacing"
        ) from None


def _frame(item: pydicom.Dataset, shared: pydicom.Dataset) -> _Frame:
    def group(name: str) -> pydicom.Dataset:
        return (item if name in item else shared)[name].value[0]

    measures = group("PixelMeasuresSequence")
    return _Frame(
        int(group("SegmentIdentificationSequence").ReferencedSegmentNumber),
        np.array(group("PlanePositionSequence").ImagePositionPatient, dtype=np.float64).reshape(3),
        np.array(group("PlaneOrientationSequence").ImageOrientationPatient, dtype=np.float64).reshape(6),
        (float(measures.PixelSpacing[0]), float(measures.PixelSpacing[1])),
        abs(float(measures.get("SpacingBetweenSlices", None) or 0)),
    )


def _lattice(frames: list[_Frame]) -> tuple[Float64[ndarray, "4 4"], Int64[ndarray, "frame"]]:
    """Index -> RAS mm, and the slice of each frame; the frames must lie on equidistant parallel planes, not on each.

    SpacingBetweenSlices counts if the positions agree with it; else their smallest distance.
    """
    first = frames[0]
    if any(
        not np.allclose(one.orientation, first.orientation, rtol=0, atol=1e-4)
        or not np.allclose(one.spacing_mm, first.spacing_mm, rtol=1e-4, atol=0)
        for one in frames
    ):
        raise CaseError("E_DICOM_MIXED", "the frames of the segmentation differ in orientation or pixel spacing")
    row, column = first.orientation[:3], first.orientation[3:]
    if abs(row @ row - 1) > 0.01 or abs(column @ column - 1) > 0.01 or abs(row @ column) > 0.01:
        raise CaseError("E_HEADER", "ImageOrientationPatient is not two perpendicular unit vectors")
    positions = np.array([one.position_mm for one in frames])
    if not np.isfinite(positions).all():
        raise CaseError("E_HEADER", "the position of a frame is not a number")
    normal = np.cross(row, column)
    along = positions @ normal
    along = along - along.min()
    steps = np.diff(np.unique(along))
    steps = steps[steps > _SAME_PLACE_MM]
    candidates = [one for one in (first.between_mm, float(steps.min()) if len(steps) else 0.0) if one > _SAME_PLACE_MM]
    for spacing in candidates:
        planes = np.rint(along / spacing)
        if np.abs(along - planes * spacing).max() <= _OFF_LATTICE * spacing:
            break
    else:
        raise CaseError(
            "E_DICOM_GAP",
            f"the {len(frames)} frames of the segmentation lie on no equidistant planes, or on one of unknown thickness",
        )
    if planes.max() > 1e5:
        raise CaseError("E_TOO_LARGE", f"the segmentation spans {planes.max():.0f} slices")
    step, origin = normal * spacing, positions[0]
    if planes.max() > 0:
        (origin, step), *_ = np.linalg.lstsq(np.stack([np.ones(len(planes)), planes], axis=1), positions, rcond=None)
        fitted = origin + planes[:, None] * step
        if np.linalg.norm(positions - fitted, axis=1).max() > _IN_PLANE_MM + _OFF_LATTICE * spacing:
            raise CaseError("E_DICOM_GAP", "the frames of the segmentation do not lie on a straight line")
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = row * first.spacing_mm[1], column * first.spacing_mm[0]
    lps[:3, 2], lps[:3, 3] = step, origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps, planes.astype(np.int64)


def segment_names(items: dict[int, pydicom.Dataset]) -> dict[int, str]:
    """Segment number -> class name: by the words of its label or description, else by its SNOMED code and side.

    Words first: the recipe behind IDC's NLST segmentations gave two gluteal muscles one code. Two segments of one name
    are refused.
    """
    known = {name for scheme in _SCHEMES for name in load_scheme(scheme).values()}
    by_words = {frozenset(name.lower().split("_")): name for name in known}
    by_code = {(row["code"], row["side"]): row["name"] for row in read_table(CODES)}
    found: dict[int, str] = {}
    for number, item in items.items():
        texts = [str(item.get(tag, None) or "") for tag in ("SegmentLabel", "SegmentDescription")]
        words = [frozenset(re.findall(r"[a-z0-9]+", text.lower())) for text in texts]
        name = next((by_words[one] for one in words if one in by_words), "") or by_code.get(_code(item), "")
        if name in found.values():
            raise CaseError("E_LABEL_VALUES", f"two segments are both {name}, expected each structure once")
        found[number] = name or f"segment_{number}"
    return found


def _code(item: pydicom.Dataset) -> tuple[str, str]:
    kinds = item.get("SegmentedPropertyTypeCodeSequence", None) or []
    if not kinds:
        return "", ""
    modifiers = kinds[0].get("SegmentedPropertyTypeModifierCodeSequence", None) or []
    side = str(modifiers[0].get("CodeValue", "")) if modifiers else ""
    return str(kinds[0].get("CodeValue", "")), _SIDES.get(side, "")
