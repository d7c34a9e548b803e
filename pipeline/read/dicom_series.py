"""Which files of a folder are the CT, and where do its slices lie? Headers only, and only the tags listed here."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Float64
from numpy import ndarray

from pipeline.errors import CaseError

HEADER_TAGS = [
    "SOPClassUID", "ImageType", "SeriesInstanceUID", "PatientID", "InstanceNumber", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "SamplesPerPixel",
]  # fmt: skip
PIXEL_TAGS = [
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "NumberOfFrames",
    "RescaleSlope", "RescaleIntercept", "PixelData",
]  # fmt: skip
FEWEST_SLICES = 8
_CT_IMAGE, _ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"
_NOT_A_STACK = {"LOCALIZER", "MIP", "MINIP"}
_COMPARABLE = 0.5
_SPACING_TOLERANCE, _PRINTED_MM = 0.01, 0.02
_SAME_POSITION = 0.01
_IN_PLANE_MM = 0.1
_COARSE_MM = 0.1


@dataclass(frozen=True)
class Slice:
    """One image of a series. `row`, `column`: LPS unit vectors along increasing column and row index."""

    path: Path
    number: int
    series: tuple
    subject: str | None
    position_mm: Float64[ndarray, "3"]
    orientation: Float64[ndarray, "6"]
    spacing_mm: tuple[float, float]


@contextmanager
def quiet_pydicom():
    """pydicom's warnings and log records quote the values of tags, which may identify a person: none may get out."""
    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def find_series(folder: Path) -> tuple[list[Slice], bool]:
    """The slices of the one CT in `folder` and below, in file order; anything that is not a CT image is passed over.

    True where CT images had to be left out: of the same series because they do not fit, or of another one.

    Slices belong together that share series, image type, size, pixel spacing and orientation. The largest group is
    taken; E_DICOM_MIXED where another holds half as many or more, or where the groups that could be a CT name two
    patients, or some of their slices none.
    """
    groups: list[list[Slice]] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "DICOMDIR"):
        one = _read_header(path)
        if one is None:
            continue
        for group in groups:
            if _belongs(one, group[0]):
                group.append(one)
                break
        else:
            groups.append([one])
    groups.sort(key=len, reverse=True)
    found = len(groups[0]) if groups else 0
    if not found:
        raise CaseError(
            "E_DICOM_FEW_SLICES",
            f"found 0 CT slices in the folder, expected {FEWEST_SLICES} or more of one series; if its CT is a NIfTI, NRRD "
            "or MetaImage file, give that file in the CSV or by the pattern, not its folder",
        )
    if found < FEWEST_SLICES:
        raise CaseError(
            "E_DICOM_FEW_SLICES", f"found {found} CT slices that belong together, expected {FEWEST_SLICES} or more"
        )
    if len(groups) > 1 and len(groups[1]) >= max(FEWEST_SLICES, _COMPARABLE * found):
        raise CaseError(
            "E_DICOM_MIXED",
            f"found two CT series, of {found} and {len(groups[1])} slices, expected one series per folder",
        )
    if len({one.subject for group in groups if len(group) >= FEWEST_SLICES for one in group}) > 1:
        raise CaseError("E_DICOM_MIXED", "the CT slices in the folder do not all name the same patient, expected one")
    return groups[0], len(groups) > 1


def _read_header(path: Path) -> Slice | None:
    """A CT slice, or None for what is no CT image; a CT image that lacks its geometry is E_DICOM_CODEC."""
    with path.open("rb") as handle:
        if handle.read(132)[128:] != b"DICM":
            return None
    try:
        with quiet_pydicom():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=HEADER_TAGS)
            kind = str(header.get("SOPClassUID", None) or header.file_meta.get("MediaStorageSOPClassUID", ""))
            image_type = tuple(str(word).upper() for word in header.get("ImageType", None) or ())
            frames = int(header.get("NumberOfFrames", None) or 1)
            if kind == _ENHANCED_CT or (kind == _CT_IMAGE and frames > 1):
                raise CaseError("E_DIM", "found an enhanced (multi-frame) CT, expected one file per slice")
            if kind != _CT_IMAGE or _NOT_A_STACK & set(image_type) or int(header.get("SamplesPerPixel", 1)) != 1:
                return None
            number = int(header.get("InstanceNumber", None) or 0)
            orientation = np.array(header.ImageOrientationPatient, dtype=np.float64)
            position = np.array(header.ImagePositionPatient, dtype=np.float64)
            spacing = (float(header.PixelSpacing[0]), float(header.PixelSpacing[1]))
            series = (str(header.SeriesInstanceUID), image_type, int(header.Rows), int(header.Columns))
            subject = str(header.get("PatientID", None) or "").strip() or None
    except (CaseError, OSError, MemoryError):
        raise
    except Exception:  # pydicom raises many kinds on damaged files, and their texts quote the tags' values
        raise CaseError(
            "E_DICOM_CODEC", "a CT file is damaged or lacks its position, orientation or pixel spacing"
        ) from None
    if (
        orientation.shape != (6,)
        or position.shape != (3,)
        or not np.isfinite([*orientation, *position, *spacing]).all()
    ):
        raise CaseError("E_DICOM_CODEC", f"slice number {number} gives no valid position and orientation")
    return Slice(path, number, series, subject, position, orientation, spacing)


def _belongs(one: Slice, group: Slice) -> bool:
    return (
        one.series == group.series
        and np.allclose(one.orientation, group.orientation, rtol=0, atol=1e-3)
        and np.allclose(one.spacing_mm, group.spacing_mm, rtol=1e-4, atol=0)
    )


def stack(slices: list[Slice]) -> list[list[Slice]]:
    """Slices ordered along the normal, those at one position together: more than one is a duplicate to look into."""
    along = np.array([one.position_mm @ _normal(one.orientation) for one in slices])
    order = np.argsort(along, kind="stable")
    sorted_mm = along[order]
    steps = np.diff(sorted_mm)
    usual = np.median(steps[steps > _PRINTED_MM / 2]) if (steps > _PRINTED_MM / 2).any() else 0.0
    places: list[list[Slice]] = []
    previous = -np.inf
    for index, place in zip(order, sorted_mm, strict=True):
        if place - previous <= _SAME_POSITION * usual:
            places[-1].append(slices[index])
        else:
            places.append([slices[index]])
        previous = place
    return places


def series_affine(slices: list[Slice]) -> Float64[ndarray, "4 4"]:
    """Index (column, row, slice) -> RAS mm from the positions alone; a gantry tilt stays in it as shear.

    The distances between neighbours may differ from their mean by 1 % (0.02 mm where that is more: positions are
    printed with two decimals), and no slice may lie off the line by more than 0.1 mm: else E_DICOM_GAP. Positions
    printed with one decimal may be even ones that were rounded.
    """
    if len(slices) < FEWEST_SLICES:
        raise CaseError(
            "E_DICOM_FEW_SLICES", f"found {len(slices)} different slice positions, expected {FEWEST_SLICES} or more"
        )
    positions = np.array([one.position_mm for one in slices])
    first, count = slices[0], len(slices)
    distances = np.diff(positions @ _normal(first.orientation))
    mean = float(distances.mean())
    step = (positions[-1] - positions[0]) / (count - 1)
    off_line = np.linalg.norm(positions - (positions[0] + np.arange(count)[:, None] * step), axis=1).max()
    uneven = np.abs(distances - mean).max() > max(_SPACING_TOLERANCE * mean, _PRINTED_MM)
    beside = off_line > _IN_PLANE_MM + _SPACING_TOLERANCE * mean
    rounded = (uneven or beside) and mean >= 2 * _COARSE_MM and _rounded_from_even(positions)
    if uneven and not rounded:
        raise CaseError(
            "E_DICOM_GAP",
            f"the {count} slices lie {distances.min():.3f} to {distances.max():.3f} mm apart, expected equal "
            "distances: slices are missing or the spacing varies",
        )
    if beside and not rounded:
        raise CaseError(
            "E_DICOM_GAP", f"slices lie up to {off_line:.2f} mm off a straight line, expected {_IN_PLANE_MM:g} mm"
        )
    lps = np.eye(4)
    lps[:3, 0] = first.orientation[:3] * first.spacing_mm[1]
    lps[:3, 1] = first.orientation[3:] * first.spacing_mm[0]
    lps[:3, 2] = step
    lps[:3, 3] = positions[0]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def _rounded_from_even(positions: Float64[ndarray, "slice 3"]) -> bool:
    """Whether positions in tenths of a millimetre are evenly spaced ones, each coordinate rounded by 0.05 mm at most.

    Any two of n steps between them then allow n times the spacing, 0.1 mm more or less; some spacing must suit all.
    A missing slice does not pass where slices lie 0.2 mm apart or more: it needs a shift of 0.4 of that distance.
    """
    if not np.allclose(positions, np.rint(positions / _COARSE_MM) * _COARSE_MM, rtol=0, atol=1e-6):
        return False
    first, last = np.triu_indices(len(positions), 1)
    for coordinate in positions.T:
        apart, steps = coordinate[last] - coordinate[first], last - first
        if ((apart - _COARSE_MM) / steps).max() > ((apart + _COARSE_MM) / steps).min() + 1e-6:
            return False
    return True


def _normal(orientation: ndarray) -> ndarray:
    row, column = orientation[:3], orientation[3:]
    if abs(row @ row - 1) > 0.01 or abs(column @ column - 1) > 0.01 or abs(row @ column) > 0.01:
        raise CaseError("E_HEADER", "ImageOrientationPatient is not two perpendicular unit vectors")
    return np.cross(row, column)
