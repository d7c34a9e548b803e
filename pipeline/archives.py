"""Members of zip and tar archives that others packed: nothing is unpacked but what is wanted, to names of our own.

An archive with a wanted member that could do harm (a path that leaves the folder, a link, a bomb, two members of one
name) is refused as a whole with a UserError; a damaged member is a CaseError, because only its case is lost.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

from pipeline.errors import CaseError, UserError
from pipeline.files import publish, write_json

MEMBER_LIMIT = 4 * 1024**3
"""Bytes; 1024 slices of 512 x 512 in float64 are 2 GiB."""
_LARGEST_RATIO = 1000
_NO_BOMB = 1 << 20
"""Below this size a member is never a bomb: a mask of nothing but zeros packs well."""
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
UNPACKED = "unpacked.json"
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile)


@dataclass(frozen=True)
class Member:
    """A regular file in an archive. `key` is equal for members of equal content (size and CRC), empty in a tar."""

    name: str
    size: int
    key: str = ""


def list_members(archive: Path, pattern: str) -> list[Member]:
    """The members of a zip whose whole name matches, checked, in the archive's order."""
    with _open_zip(archive) as bundle:
        infos = _checked(bundle, archive, pattern)
    return [Member(info.filename, info.file_size, f"{info.CRC:08x}-{info.file_size}") for info in infos]


def read_members(archive: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of some members of a zip, whose CRC holds; CaseError E_ARCHIVE for a damaged or missing one."""
    with _open_zip(archive) as bundle:
        for name in names:
            try:
                info = bundle.getinfo(name)
            except KeyError:
                raise CaseError("E_ARCHIVE", "the archive does not hold a file that belongs to this case") from None
            _check(archive, name, info.file_size, info.file_size / max(info.compress_size, 1), {})
            try:
                yield name, bundle.read(info)
            except _DAMAGED:
                raise CaseError("E_ARCHIVE", "a file of this case is damaged inside the archive") from None


def damaged_member(archive: Path) -> str:
    """The first member of a zip whose content does not match its checksum, "" where all do or it is no zip."""
    if archive.name.endswith(_TAR_SUFFIXES) or not zipfile.is_zipfile(archive):
        return ""
    with _open_zip(archive) as bundle:
        for info in bundle.infolist():
            try:
                with bundle.open(info) as stream:
                    while stream.read(1 << 20):
                        pass
            except _DAMAGED:
                return info.filename
    return ""


def unpack(archive: Path, pattern: str, folder: Path) -> list[Path]:
    """Write the matching members of a zip or tar to `folder` as 0001, 0002, ... with their suffixes."""
    shutil.rmtree(folder, ignore_errors=True)
    written = []
    for name, stream in _streams(archive, pattern):
        suffix = ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix
        path = folder / f"{len(written) + 1:04d}{suffix}"
        _write(stream, path, archive)
        written.append(path)
    return written


def unpack_once(archive: Path, pattern: str, folder: Path) -> dict[str, Path]:
    """The matching members of an archive by the last part of their names, as files in `folder`.

    For tar.gz, where every access reads from the start. The list is written last: without it everything is done again.
    """
    done = folder / UNPACKED
    try:
        return {name: folder / name for name in json.loads(done.read_text(encoding="utf-8"))}
    except (OSError, ValueError):
        shutil.rmtree(folder, ignore_errors=True)
    names: dict[str, str] = {}
    for name, stream in _streams(archive, pattern):
        base = name.rpartition("/")[2]
        if base.lower() in names:
            raise UserError(_refused(archive, name, f"and {names[base.lower()]!r} would be the same file"))
        names[base.lower()] = base
        _write(stream, folder / base, archive)
    write_json(done, sorted(names.values()))
    return {name: folder / name for name in names.values()}


def gunzip(data: bytes, limit: int) -> bytes:
    """The content of a gzip file, read to its end with its checksum, at most `limit` bytes; else a CaseError."""
    if not data.startswith(b"\x1f\x8b"):
        raise CaseError("E_NOT_NIFTI", "a member of the archive is no gzip file; expected .nii.gz")
    parts, size, rest = [], 0, data
    while rest.startswith(b"\x1f\x8b"):
        member = zlib.decompressobj(wbits=31)
        try:
            parts.append(member.decompress(rest, limit + 1 - size))
        except zlib.error:
            raise CaseError("E_GZIP_CRC", "the gzip data is damaged: it does not match its checksum") from None
        size += len(parts[-1])
        if size > limit:
            raise CaseError("E_TOO_LARGE", f"a member of the archive inflates to more than {limit} bytes")
        if not member.eof:
            raise CaseError("E_GZIP_TRUNCATED", "the gzip data ends before its checksum: the file is incomplete")
        rest = member.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _streams(archive: Path, pattern: str) -> Iterator[tuple[str, BufferedIOBase]]:
    """Name and stream of the matching members, each checked before its first byte is read."""
    if not archive.name.endswith(_TAR_SUFFIXES):
        with _open_zip(archive) as bundle:
            for info in _checked(bundle, archive, pattern):
                with bundle.open(info) as stream:
                    yield info.filename, stream
        return
    seen: dict[str, str] = {}
    total, packed = 0, archive.stat().st_size
    try:
        with tarfile.open(archive) as bundle:
            for member in bundle:
                if not re.fullmatch(pattern, member.name) or member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise UserError(_refused(archive, member.name, "is a link, a device or a sparse file"))
                total += member.size
                _check(archive, member.name, member.size, total / packed, seen)
                stream = bundle.extractfile(member)
                yield member.name, stream
    except _DAMAGED as error:
        raise UserError(_damaged(archive, error)) from None


def _write(stream: BufferedIOBase, path: Path, archive: Path) -> None:
    try:
        with publish(path) as private, private.open("wb") as handle:
            shutil.copyfileobj(stream, handle, 1 << 20)
    except _DAMAGED as error:
        if archive.name.endswith(_TAR_SUFFIXES):
            raise UserError(_damaged(archive, error)) from None
        raise CaseError("E_ARCHIVE", "a file of this case is damaged inside the archive") from None


def _damaged(archive: Path, error: BaseException) -> str:
    return f"{archive.name} is damaged or incomplete ({error}). Delete it and download it again."


def _open_zip(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise UserError(_damaged(archive, error)) from None


def _checked(bundle: zipfile.ZipFile, archive: Path, pattern: str) -> list[zipfile.ZipInfo]:
    wanted, seen = [], {}
    for info in bundle.infolist():
        if not re.fullmatch(pattern, info.filename) or info.is_dir():
            continue
        kind = info.external_attr >> 28 if info.create_system == 3 else 0
        if kind not in (0, 0o10) or info.flag_bits & 1:
            raise UserError(_refused(archive, info.filename, "is a link, a device or encrypted"))
        _check(archive, info.filename, info.file_size, info.file_size / max(info.compress_size, 1), seen)
        wanted.append(info)
    return wanted


def _check(archive: Path, name: str, size: int, ratio: float, seen: dict[str, str]) -> None:
    """Refuse what could harm: a name that leaves the folder, too much content, a name that is taken."""
    if name.startswith("/") or re.search(r"(^|/)\.\.(/|$)|[\\:\0]", name):
        raise UserError(_refused(archive, name, "has a name that could leave its folder"))
    if size > MEMBER_LIMIT:
        raise UserError(_refused(archive, name, f"has {size} bytes; expected at most {MEMBER_LIMIT}"))
    if ratio > _LARGEST_RATIO and size > _NO_BOMB:
        raise UserError(_refused(archive, name, f"inflates {ratio:.0f}-fold; expected at most {_LARGEST_RATIO}"))
    if name.lower() in seen:
        raise UserError(_refused(archive, name, f"and {seen[name.lower()]!r} would be the same file"))
    seen[name.lower()] = name


def _refused(archive: Path, name: str, why: str) -> str:
    return f"{archive.name}: member {name!r} {why}. The archive is refused; get it from its publisher."
