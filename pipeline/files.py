"""Files that are either whole or absent, and the small records that stages hand to each other."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy import ndarray


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Yield a private path beside `path`; on success its content becomes `path` in one step, on an error nothing does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.tmp-*"):
        leftover.unlink(missing_ok=True)
    private = path.parent / f".{path.name}.tmp-{os.getpid()}"
    try:
        yield private
        with private.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(private, path)
    finally:
        private.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Publish a UTF-8 text file."""
    with publish(path) as private:
        private.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Publish JSON with sorted keys, so that the same content is the same bytes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path, columns: tuple[str, ...], rows: list[dict]) -> None:
    """Publish a tab-separated table with a header line; missing cells are empty, control characters become blanks.

    A cell that a spreadsheet would run as a formula gets a ' in front.
    """
    lines = ["\t".join(columns)]
    lines += ["\t".join(_cell(row.get(column, "")) for column in columns) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def _cell(value: object) -> str:
    text = " ".join(str(value).split())
    formula = text[:1] in ("=", "+", "-", "@") and not isinstance(value, int | float)
    return f"'{text}" if formula else text


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a table that `write_table` wrote."""
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def array_sha256(array: ndarray) -> str:
    """Hex digest of an array's C-order little-endian bytes: the `ct_sha256` of the shard."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return hashlib.sha256(little.tobytes()).hexdigest()
