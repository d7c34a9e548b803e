"""NIfTI-1 and -2 single files, plain or gzip, header first."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from numpy import ndarray

from pipeline.errors import CaseError
from pipeline.orientation import SIDES
from pipeline.read.stream import Stream
from pipeline.read.values import Stored, check_dtype, read_stored

_UNITS = {1: "metres", 3: "micrometres"}
_MM_OR_UNSAID = (0, 2)
_LARGEST_EXTENSION = 16 << 20
_FORMS_AGREE_VOXELS = 0.1


def read_nifti(path: Path, assume_orientation: str = "") -> Stored:
    """Voxels and affine of a 3-D NIfTI file. The sform wins over the qform, both over pixdim.

    `assume_orientation` (read_volume) is for a file that has neither.
    """
    stream = Stream(path)
    header = _parse(stream)
    shape = _shape(header)
    dtype = _dtype(header)
    affine, forms_differ = _affine(header, shape, assume_orientation)
    units = int(header["xyzt_units"]) & 7
    if units not in _MM_OR_UNSAID:
        raise CaseError("E_UNITS", f"the header gives lengths in {_UNITS.get(units, 'an unknown unit')}, expected mm")
    slope, intercept, ignored = _scaling(header)
    stream.check_size(math.prod(shape) * dtype.itemsize)
    _skip_extensions(stream, header)
    noticed = {"QS_MISMATCH": forms_differ, "SCALING_IGNORED": ignored}
    flags = frozenset(name for name, seen in noticed.items() if seen)
    return read_stored(stream, dtype, shape, affine, slope=slope, intercept=intercept, flags=flags)


def _parse(stream: Stream) -> Nifti1Header:
    """The header in its own byte order; nibabel's repairs are not run, this module decides what is good."""
    start = bytes(stream.take(4))
    for kind in (Nifti1Header, Nifti2Header):
        for order, byteorder in (("<", "little"), (">", "big")):
            if start == kind.sizeof_hdr.to_bytes(4, byteorder):
                block = start + stream.take(kind.sizeof_hdr - 4)
                if len(block) < kind.sizeof_hdr:
                    raise CaseError("E_TRUNCATED", f"found {len(block)} bytes of header, expected {kind.sizeof_hdr}")
                header = kind(block, endianness=order, check=False)
                if header["magic"].item()[:3] != kind.single_magic[:3]:
                    raise CaseError("E_NOT_NIFTI", "found an Analyze or two-file NIfTI header, expected a single file")
                return header
    raise CaseError("E_NOT_NIFTI", "the file is neither NIfTI nor NRRD nor MetaImage")


def _shape(header: Nifti1Header) -> tuple[int, int, int]:
    """Three sizes; further axes of length one are dropped."""
    rank = int(header["dim"][0])
    sizes = [int(size) for size in header["dim"][1 : rank + 1]] if 1 <= rank <= 7 else []
    if not sizes or min(sizes) < 1:
        raise CaseError("E_HEADER", "the header's dimensions are not valid, expected 3 positive sizes")
    if len(sizes) < 3 or max(sizes[3:], default=1) > 1 or min(sizes[:3]) < 2:
        raise CaseError("E_DIM", f"the image has the shape {' x '.join(map(str, sizes))}, expected one 3-D volume")
    return tuple(sizes[:3])


def _dtype(header: Nifti1Header) -> np.dtype:
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        dtype = None
    if dtype is None or not dtype.itemsize:
        if int(header["datatype"]) in (1, 1536, 2048):
            raise CaseError(
                "E_DTYPE", "the voxels are bits or of extended precision, expected integers or real numbers"
            )
        raise CaseError("E_HEADER", f"the header's data type code {int(header['datatype'])} is not a NIfTI code")
    check_dtype(dtype)
    return dtype


def _affine(
    header: Nifti1Header, shape: tuple[int, ...], assume_orientation: str
) -> tuple[Float64[ndarray, "4 4"], bool]:
    """Index -> RAS mm and whether qform and sform disagree by more than a tenth of a voxel at a corner.

    A negative voxel size is a disagreement as well: some readers mirror the image for it.
    """
    mirrored = bool((header["pixdim"][1:4] < 0).any())
    header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
    has_sform, has_qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    sform = header.get_sform().astype(np.float64) if has_sform else None
    qform = None
    if has_qform:
        try:
            with np.errstate(all="ignore"):
                qform = header.get_qform().astype(np.float64)
        except (HeaderDataError, ValueError):
            if not has_sform:
                raise CaseError("E_HEADER", "the header's orientation quaternion is not valid") from None
    if not has_sform and qform is None and assume_orientation:
        return _assumed(assume_orientation, header["pixdim"][1:4]), False
    if not has_sform and qform is None:
        raise CaseError("E_NO_ORIENTATION", "the header gives no orientation: sform_code and qform_code are both 0")
    if sform is None:
        return qform, mirrored
    if has_qform:
        mirrored |= qform is None or _apart_voxels(sform, qform, shape) > _FORMS_AGREE_VOXELS
    return sform, mirrored


def _assumed(axes: str, spacing_mm: Float32[ndarray, "3"]) -> Float64[ndarray, "4 4"]:
    """The affine of voxels whose axes run to three sides of the patient, as LAS; the first voxel lies at the origin."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for column, side in enumerate(axes):
        row = next(n for n, pair in enumerate(SIDES) if side in pair)
        affine[row, column] = spacing_mm[column] if side == SIDES[row][1] else -spacing_mm[column]
    return affine


def _apart_voxels(one: ndarray, other: ndarray, shape: tuple[int, ...]) -> float:
    if not np.isfinite(one).all():
        return np.inf
    corners = np.array(np.meshgrid(*([0, size - 1] for size in shape), [1])).reshape(4, -1)
    spacing = np.linalg.norm(one[:3, :3], axis=0).min()
    return float(np.abs((one - other) @ corners).max() / max(spacing, 1e-9))


def _scaling(header: Nifti1Header) -> tuple[float, float, bool]:
    """Slope and intercept; a slope of 0, NaN or infinity means neither is used, as the standard says.

    True where an intercept is left unused for that: other readers add it.
    """
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0, math.isfinite(intercept) and intercept != 0
    if not math.isfinite(intercept):
        raise CaseError("E_HEADER", "the header's scl_inter is not a finite number")
    return slope, intercept, False


def _skip_extensions(stream: Stream, header: Nifti1Header) -> None:
    """Move to the voxels. Extensions can carry names: they are never looked at."""
    offset, least = float(header["vox_offset"]), header.single_vox_offset
    if offset == 0:
        offset = least
    if not least <= offset <= _LARGEST_EXTENSION:
        raise CaseError("E_HEADER", f"the header's vox_offset is not valid, expected {least} or a little more")
    stream.take(int(offset) - header.sizeof_hdr)
