"""X-rays as files for people and for codes that read pictures: 8-bit PNG, 16-bit DICOM without a patient."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image

from pipeline.display import anatomy_window, clahe, to_8bit, window
from pipeline.files import publish
from pipeline.shard_file import Xray

DICOM_SLOPE, DICOM_INTERCEPT = 2e-4, -1.0
"""Line integral = slope * stored 16-bit value + intercept: -1 (noise above the open field) to 12.1."""

_COMPUTED_RADIOGRAPHY = "1.2.840.10008.5.1.4.1.1.1"
_VIEW_POSITION = {"PA": "PA", "AP": "AP", "LAT": "LL", "RLAT": "RL"}


def write_pictures(
    out: Path,
    xray: Xray,
    *,
    png: bool,
    dicom: bool,
    limits: Sequence[float] | None = None,
    local_contrast: bool = False,
) -> list[Path]:
    """Pictures <stem of out>_<view> beside `out`, their paths.

    `limits` are the line integrals shown black and white; without them each view gets its `anatomy_window`.
    """
    written = []
    for number, view in enumerate(xray.views):
        image = xray.image[number]
        low, high = limits or anatomy_window(image)
        stem = out.with_name(f"{out.stem}_{view}")
        if png:
            unit = window(image, low, high)
            written.append(Path(f"{stem}.png"))
            save_png(written[-1], to_8bit(clahe(unit) if local_contrast else unit))
        if dicom:
            written.append(Path(f"{stem}.dcm"))
            save_dicom(written[-1], xray, number, low=low, high=high)
    return written


def save_png(path: Path, pixels: UInt8[ndarray, "v u"]) -> None:
    """Publish an 8-bit grey PNG."""
    with publish(path) as private:
        Image.fromarray(pixels).save(private, "PNG")


def save_dicom(path: Path, xray: Xray, number: int, *, low: float, high: float) -> None:
    """Publish one view as a Computed Radiography image, MONOCHROME2 (dense is bright), window `low` to `high` as tags.

    The pixel values times the rescale slope plus intercept are the line integrals. Pixel spacing is that on the detector.
    Nothing in the file tells a patient, a place or a time: the same X-ray is the same bytes.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    stored = np.rint((xray.image[number] - DICOM_INTERCEPT) / DICOM_SLOPE)
    pixels = np.clip(stored, 0, 65535).astype("<u2")
    view, (_, step_v, step_u) = xray.views[number], xray.detector_mm[number]
    spacing = [f"{np.linalg.norm(step):.9g}" for step in (step_v, step_u)]
    digest = hashlib.sha256(pixels.tobytes() + xray.projection[number].tobytes()).digest()

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = _COMPUTED_RADIOGRAPHY
    meta.MediaStorageSOPInstanceUID = _uid(digest, "instance")
    file = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.StudyInstanceUID, file.SeriesInstanceUID = _uid(digest, "study"), _uid(digest, "series")
    for blank in (
        *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID"),
        *("PatientBirthDate", "PatientSex", "StudyID", "Laterality", "BodyPartExamined"),
    ):
        setattr(file, blank, "")
    file.Modality, file.Manufacturer, file.ImageType = "CR", "xr2ct (simulated)", ["DERIVED", "SECONDARY"]
    file.ImageComments = "Simulated X-ray. Pixel value * slope + intercept = line integral -log(I/I0)."
    file.SeriesDescription, file.ViewPosition = view, _VIEW_POSITION.get(view, "")
    file.SeriesNumber, file.InstanceNumber, file.BurnedInAnnotation = 1, number + 1, "NO"
    tube = re.match(r"([\d.]+)KV_", str(xray.attributes.get("spectrum", "")))
    file.KVP = tube[1] if tube else None
    if "sdd_mm" in xray.attributes:
        file.DistanceSourceToDetector = f"{xray.attributes['sdd_mm']:g}"
        file.DistanceSourceToPatient = f"{xray.attributes['sod_mm']:g}"
    file.PatientOrientation = [_letters(step_u), _letters(step_v)]
    file.ImagerPixelSpacing = file.PixelSpacing = spacing
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
    file.RescaleSlope, file.RescaleIntercept, file.RescaleType = str(DICOM_SLOPE), str(DICOM_INTERCEPT), "US"
    file.WindowCenter, file.WindowWidth = f"{(low + high) / 2:.9g}", f"{high - low:.9g}"
    file.VOILUTFunction = "LINEAR_EXACT"
    file.PixelData = pixels.tobytes()
    with publish(path) as private:
        file.save_as(private, enforce_file_format=True)


def _uid(digest: bytes, role: str) -> str:
    """An identifier from content, in the arc that is free for everyone (2.25)."""
    return f"2.25.{int.from_bytes(hashlib.sha256(digest + role.encode()).digest()[:15], 'big')}"


def _letters(direction: Float[ndarray, "3"]) -> str:
    """Where a direction in RAS mm points, as DICOM names it: its main axis first, others from 20 degrees on."""
    unit = direction / np.linalg.norm(direction)
    order = np.argsort(-np.abs(unit))
    return "".join("RAH"[axis] if unit[axis] > 0 else "LPF"[axis] for axis in order if abs(unit[axis]) > 0.342)
