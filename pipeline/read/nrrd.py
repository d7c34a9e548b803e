"""NRRD single files (raw or gzip): pynrrd reads the header, the voxels are read here because it skips the checksum."""

from __future__ import annotations

import io
from pathlib import Path

import nrrd
import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from pipeline.errors import CaseError
from pipeline.read.stream import Stream
from pipeline.read.values import Stored, check_dtype, read_stored

_TO_RAS = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_DTYPE = {name: dtype for dtype, names in _TYPES.items() for name in names.split(", ")}
_MILLIMETRE = {"mm", "millimeter", "millimetre"}
_LARGEST_HEADER = 1 << 20


def read_nrrd(path: Path) -> Stored:
    """Voxels and affine of a 3-D NRRD file, in the order that NRRD calls fastest first."""
    header, offset = _parse(path)
    sizes, spatial = _axes(header)
    dtype = _dtype(header)
    affine = _affine(header, spatial)
    encoding = str(header.get("encoding", "")).lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise CaseError("E_HEADER", "the NRRD encoding is not known here, expected raw or gzip")
    stream = Stream(path, offset, packing="plain" if encoding == "raw" else "gzip")
    return read_stored(stream, dtype, tuple(sizes[axis] for axis in spatial), affine)


def _parse(path: Path) -> tuple[dict, int]:
    """Header fields and the offset of the data behind the first blank line."""
    with path.open("rb") as handle:
        start = handle.read(_LARGEST_HEADER)
    ends = [end for blank in (b"\n\n", b"\r\n\r\n") if (end := start.find(blank) + len(blank)) >= len(blank)]
    if not ends:
        raise CaseError("E_TRUNCATED", "the NRRD header does not end, expected a blank line before the voxels")
    try:
        header = nrrd.read_header(io.BytesIO(start[: min(ends)]))
    except (nrrd.NRRDError, ValueError, TypeError, KeyError, IndexError, StopIteration):
        raise CaseError("E_HEADER", "the NRRD header cannot be parsed") from None
    if any(field in header for field in ("data file", "datafile")):
        raise CaseError("E_HEADER", "the NRRD header points to another file, expected header and voxels in one file")
    if any(header.get(field, 0) for field in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise CaseError("E_HEADER", "the NRRD header skips lines or bytes, expected the voxels right after the header")
    return header, min(ends)


def _axes(header: dict) -> tuple[list[int], list[int]]:
    """All sizes and the indices of the three spatial axes; any other axis must have length one."""
    sizes = [int(size) for size in header.get("sizes", ())]
    if not sizes or min(sizes) < 1 or header.get("dimension") != len(sizes):
        raise CaseError("E_HEADER", "the NRRD sizes are not valid, expected 3 positive sizes")
    directions = header.get("space directions")
    if len(sizes) == 3:
        spatial = [0, 1, 2]
    else:
        known = np.isfinite(np.atleast_2d(directions)).all(axis=1) if directions is not None else []
        spatial = [axis for axis, is_spatial in enumerate(known) if is_spatial]
    others = [size for axis, size in enumerate(sizes) if axis not in spatial]
    if len(spatial) != 3 or max(others, default=1) > 1 or min(sizes[axis] for axis in spatial) < 2:
        raise CaseError("E_DIM", f"the image has the shape {' x '.join(map(str, sizes))}, expected one 3-D volume")
    return sizes, spatial


def _dtype(header: dict) -> np.dtype:
    name = _DTYPE.get(str(header.get("type", "")).lower())
    if name is None:
        raise CaseError("E_DTYPE", "the NRRD type is not a number type, expected integers or real numbers")
    endian = {"little": "<", "big": ">"}.get(str(header.get("endian", "")).lower())
    if endian is None and name not in ("i1", "u1"):
        raise CaseError("E_HEADER", "the NRRD header does not say its byte order, expected endian little or big")
    dtype = np.dtype((endian or "<") + name)
    check_dtype(dtype)
    return dtype


def _affine(header: dict, spatial: list[int]) -> Float64[ndarray, "4 4"]:
    signs = _TO_RAS.get(str(header.get("space", "")).lower())
    directions, origin = header.get("space directions"), header.get("space origin")
    if signs is None or directions is None or origin is None:
        raise CaseError(
            "E_NO_ORIENTATION", "the NRRD header lacks space (RAS, LAS, LPS), space directions or space origin"
        )
    units = header.get("space units", ["mm"])
    if any(str(unit).strip('"').lower() not in _MILLIMETRE for unit in units):
        raise CaseError("E_UNITS", "the NRRD header gives lengths in another unit, expected mm")
    directions, origin = np.asarray(directions, np.float64), np.asarray(origin, np.float64)
    if directions.ndim != 2 or directions.shape[1] != 3 or len(directions) <= max(spatial) or origin.shape != (3,):
        raise CaseError("E_HEADER", "the NRRD space directions and origin are not three vectors and a point")
    affine = np.eye(4)
    affine[:3, :3] = directions[spatial].T
    affine[:3, 3] = origin
    return np.diag([*map(float, signs), 1.0]) @ affine
