"""MetaImage: .mha, or .mhd with one data file beside it, plain or zlib. The world of its header is LPS, as in ITK."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from pipeline.errors import CaseError
from pipeline.read.stream import Stream
from pipeline.read.values import Stored, check_dtype, read_stored

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_LARGEST_HEADER = 1 << 16


def read_mha(path: Path) -> Stored:
    """Voxels and affine of a 3-D MetaImage."""
    header, offset = _parse(path)
    shape, dtype, affine = _shape(header), _dtype(header), _affine(header)
    source = _voxel_file(path, header)
    packing = "zlib" if _flag(header, "compresseddata") else "plain"
    stream = Stream(source, offset if source == path else 0, packing=packing)
    return read_stored(stream, dtype, shape, affine)


def voxel_file(path: Path) -> Path:
    """The file that holds the voxels of a MetaImage: `path` itself, or the one beside it that its header names."""
    return _voxel_file(path, _parse(path)[0])


def _parse(path: Path) -> tuple[dict[str, str], int]:
    """Header fields under lower-case names, and the offset behind ElementDataFile, which is the last of them."""
    with path.open("rb") as handle:
        start = handle.read(_LARGEST_HEADER)
    fields: dict[str, str] = {}
    offset = 0
    while "elementdatafile" not in fields:
        end = start.find(b"\n", offset)
        if end < 0:
            raise CaseError(
                "E_TRUNCATED", "the MetaImage header does not end, expected ElementDataFile as its last line"
            )
        name, equals, value = start[offset:end].decode("latin-1").partition("=")
        if not equals and name.strip():
            raise CaseError("E_HEADER", "the MetaImage header holds a line that is not NAME = VALUE")
        fields[name.strip().lower()] = value.strip()
        offset = end + 1
    if fields.get("objecttype", "Image") != "Image" or not _flag(fields, "binarydata", "True"):
        raise CaseError(
            "E_HEADER", "the MetaImage is no image of binary voxels, expected ObjectType Image, BinaryData True"
        )
    if _numbers(fields, "headersize", [0.0]) != [0.0]:
        raise CaseError("E_HEADER", "the MetaImage header skips bytes of its data, expected HeaderSize 0")
    return fields, offset


def _shape(header: dict[str, str]) -> tuple[int, int, int]:
    sizes = _numbers(header, "dimsize")
    if not sizes or any(size < 1 or size != int(size) for size in sizes) or _numbers(header, "ndims") != [len(sizes)]:
        raise CaseError("E_HEADER", "the MetaImage's NDims and DimSize are not valid, expected 3 positive sizes")
    sizes = [int(size) for size in sizes]
    if len(sizes) < 3 or max(sizes[3:], default=1) > 1 or min(sizes[:3]) < 2:
        raise CaseError("E_DIM", f"the image has the shape {' x '.join(map(str, sizes))}, expected one 3-D volume")
    return sizes[0], sizes[1], sizes[2]


def _dtype(header: dict[str, str]) -> np.dtype:
    code = _TYPES.get(header.get("elementtype", ""))
    if code is None or _numbers(header, "elementnumberofchannels", [1.0]) != [1.0]:
        raise CaseError(
            "E_DTYPE", "the MetaImage does not hold one number per voxel, expected integers or real numbers"
        )
    big = _flag(header, "binarydatabyteordermsb") or _flag(header, "elementbyteordermsb")
    dtype = np.dtype((">" if big else "<") + code)
    check_dtype(dtype)
    return dtype


def _affine(header: dict[str, str]) -> Float64[ndarray, "4 4"]:
    """Index -> RAS mm. The matrix lists the direction of the first axis first; further axes are of length one."""
    rank = len(_numbers(header, "dimsize"))
    matrix = _first(header, "transformmatrix", "orientation", "rotation")
    origin = _first(header, "offset", "position", "origin")
    if matrix is None or origin is None:
        raise CaseError("E_NO_ORIENTATION", "the MetaImage header lacks TransformMatrix or Offset")
    spacing = _first(header, "elementspacing", "elementsize")
    if spacing is None:
        raise CaseError("E_SPACING", "the MetaImage header lacks ElementSpacing, expected the voxel size in mm")
    if len(matrix) != rank**2 or len(origin) != rank or len(spacing) != rank:
        raise CaseError("E_HEADER", f"the MetaImage's matrix, offset and spacing do not have {rank} dimensions")
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(matrix, (rank, rank))[:3, :3].T * spacing[:3]
    lps[:3, 3] = origin[:3]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def _voxel_file(path: Path, header: dict[str, str]) -> Path:
    name = header["elementdatafile"]
    if name == "LOCAL":
        return path
    if not re.fullmatch(r"[^/\\%:\0]{1,255}", name) or name in (".", "..", path.name) or name.startswith("LIST"):
        raise CaseError("E_HEADER", "the MetaImage's voxels are not in one file beside its header")
    source = path.parent / name
    if not source.is_file():
        raise CaseError("E_MISSING", "the file with the MetaImage's voxels does not exist beside its header")
    return source


def _flag(header: dict[str, str], name: str, default: str = "False") -> bool:
    return header.get(name, default).lower() in ("true", "1", "t", "yes")


def _first(header: dict[str, str], *names: str) -> list[float] | None:
    return next((_numbers(header, name) for name in names if name in header), None)


def _numbers(header: dict[str, str], name: str, default: list[float] | None = None) -> list[float]:
    try:
        return [float(word) for word in header[name].split()]
    except KeyError:
        return default or []
    except ValueError:
        raise CaseError("E_HEADER", "a field of the MetaImage header that should hold numbers does not") from None
