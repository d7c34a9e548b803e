"""The files that make up one CT or label map, and a mark by which another CT in their place is noticed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import CaseError
from pipeline.files import file_sha256

METAIMAGE_START = re.compile(rb"\s*(ObjectType|ObjectSubType|NDims|Comment)\s*=")
"""A MetaImage has no magic number: it starts with one of these lines."""
_MAGIC_BYTES = 132
_BLOCK_BYTES = 4096


def parts_of(path: Path) -> list[Path]:
    """`path`, and behind the header of a MetaImage the file beside it that holds its voxels, if that can be told."""
    try:
        if not path.is_file():
            return [path]
        with path.open("rb") as handle:
            if not METAIMAGE_START.match(handle.read(_MAGIC_BYTES)):
                return [path]
        from pipeline.read.mha import voxel_file  # most files are none, and the readers take their time to import

        return list(dict.fromkeys([path, voxel_file(path)]))
    except (OSError, CaseError):
        return [path]


def content_sha256(path: Path) -> str:
    """Hash of a file, or over the hashes of all files of a series or of a MetaImage with its voxels."""
    parts = _members(path) if path.is_dir() else parts_of(path)
    if parts == [path]:
        return file_sha256(path)
    return hashlib.sha256("".join(map(file_sha256, parts)).encode()).hexdigest()


def fingerprint(path: Path) -> str:
    """What a plan can ask of every CT at every start: the size, and a checksum of 4 KiB at the start, middle and end.

    At the end of a gzip file stands the checksum of all it holds. Of a series: how many bytes, under which names, and
    these places of the file in the middle.
    """
    members = _members(path) if path.is_dir() else [path]
    size = sum(member.stat().st_size for member in members)
    mark = hashlib.sha256("\0".join(member.relative_to(path).as_posix() for member in members).encode())
    try:
        for block in _samples(members[len(members) // 2]) if members else ():
            mark.update(block)
    except OSError:  # the stage that reads it says so
        pass
    return f"{size}-{mark.hexdigest()[:16]}"


def _samples(path: Path) -> Iterator[bytes]:
    last = max(0, path.stat().st_size - _BLOCK_BYTES)
    with path.open("rb") as handle:
        for start in (0, last // 2, last):
            handle.seek(start)
            yield handle.read(_BLOCK_BYTES)


def _members(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
