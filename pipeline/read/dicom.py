"""A CT from a DICOM folder: every slice decoded, rescaled by its own tags and put where its position says."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Float64
from numpy import ndarray

from pipeline.errors import CaseError
from pipeline.read.dicom_series import PIXEL_TAGS, Slice, find_series, quiet_pydicom, series_affine, stack
from pipeline.read.values import PADDING_HU, Hu, compact


def read_dicom(folder: Path) -> tuple[Hu, Float64[ndarray, "4 4"], str | None, str, set[str]]:
    """HU, affine, PatientID (hash it, never write it), content hash of the series whatever its file names, and flags."""
    slices, left_out = find_series(folder)
    places = stack(slices)
    chosen = [place[0] for place in places]
    affine = series_affine(chosen)
    _, _, rows, columns = chosen[0].series
    values = np.empty((len(chosen), rows, columns), np.float32)
    digests = []
    for plane, place in zip(values, places, strict=True):
        twins = [_read_slice(one) for one in place]
        plane[:] = twins[0][0]
        digests.append(min(digest for _, digest in twins))
        for one, (pixels, _) in zip(place, twins, strict=True):
            if not np.array_equal(plane, pixels):
                raise CaseError(
                    "E_DICOM_DUPLICATE",
                    f"slices number {place[0].number} and {one.number} share a position but not their pixels",
                )
    digest = hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()
    flags = {"SLICES_LEFT_OUT"} if left_out or len(places) < len(slices) else set()
    return compact(values.transpose(2, 1, 0)), affine, chosen[0].subject, digest, flags


def _read_slice(one: Slice) -> tuple[ndarray, str]:
    """HU (row, column) in float32, padding -1024, and the hash of the file. Padding is found before the rescale."""
    content = one.path.read_bytes()
    try:
        with quiet_pydicom():
            dataset = pydicom.dcmread(io.BytesIO(content), specific_tags=PIXEL_TAGS)
            pixels = dataset.pixel_array
            padding = _padding(dataset, pixels)
    except MemoryError:
        raise
    except Exception:  # decoders raise many kinds, and their texts may quote tags
        raise CaseError(
            "E_DICOM_CODEC",
            f"the pixels of slice number {one.number} cannot be decoded: the file is incomplete, or its compression "
            "needs a plugin (pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg)",
        ) from None
    slope, intercept = _rescale(dataset, one.number)
    hu = pixels.astype(np.float64) * slope + intercept
    hu[padding] = PADDING_HU
    return hu.astype(np.float32), hashlib.sha256(content).hexdigest()


def _rescale(dataset: pydicom.Dataset, number: int) -> tuple[float, float]:
    try:
        slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
        valid = np.isfinite([slope, intercept]).all() and slope != 0
    except (AttributeError, TypeError, ValueError):
        valid = False
    if not valid:
        raise CaseError(
            "E_DICOM_RESCALE",
            f"slice number {number} lacks a valid RescaleSlope and RescaleIntercept: no HU without them",
        )
    return slope, intercept


def _padding(dataset: pydicom.Dataset, pixels: ndarray) -> ndarray:
    """Where the pixels are padding; the tags are read in the pixels' own signedness, which writers get wrong."""
    ends = [dataset.get(name, None) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:
        return np.zeros(pixels.shape, bool)
    bits = 8 * pixels.dtype.itemsize
    signed = pixels.dtype.kind == "i"
    values = [int(end) % (1 << bits) for end in ends if end is not None]
    values = [value - (1 << bits) if signed and value >= 1 << (bits - 1) else value for value in values]
    return (pixels >= min(values)) & (pixels <= max(values))
