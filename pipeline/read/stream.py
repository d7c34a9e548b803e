"""Bytes of a plain, gzip or zlib file, read to the very end with the checksum, in memory that the header's size bounds.

nibabel, SimpleITK and pynrrd all skip the gzip checksum: one flipped bit gives wrong voxels without a word.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from pipeline.errors import CaseError

GZIP_MAGIC = b"\x1f\x8b"
_WINDOW_BITS = {"gzip": 31, "zlib": 15}
_CHUNK = 1 << 20
_LARGEST_DEFLATE_RATIO = 1032
_LARGEST_BYTES = 4 << 30
_LARGEST_TAIL = 64 << 20


class Stream:
    """Consecutive bytes of `path` from `offset` on, inflated by `packing`; without one, if a gzip member starts there."""

    def __init__(self, path: Path, offset: int = 0, *, packing: str | None = None):
        if packing is None:
            with path.open("rb") as handle:
                handle.seek(offset)
                packing = "gzip" if handle.read(2) == GZIP_MAGIC else "plain"
        self._packing = packing
        self._stored_bytes = os.path.getsize(path) - offset
        self._chunks = _plain(path, offset) if packing == "plain" else _inflated(path, offset, packing)
        self._rest = memoryview(b"")

    def take(self, count: int) -> bytearray:
        """The next `count` bytes, fewer at the end of the file."""
        taken = bytearray()
        while len(taken) < count:
            if not self._rest:
                self._rest = memoryview(next(self._chunks, b""))
                if not self._rest:
                    break
            size = min(len(self._rest), count - len(taken))
            taken += self._rest[:size]
            self._rest = self._rest[size:]
        return taken

    def take_payload(self, count: int) -> UInt8[ndarray, "byte"]:
        """All `count` voxel bytes at once."""
        (payload,) = self.take_blocks(count, count)
        return payload

    def take_blocks(self, count: int, size: int) -> Iterator[UInt8[ndarray, "byte"]]:
        """The `count` voxel bytes, `size` at a time; one block lasts until the next is asked for.

        Behind the last one on to the end of the file, where gzip keeps its checksum: take them all.
        """
        self.check_size(count)
        buffer = np.empty(min(size, count), np.uint8)
        for start in range(0, count, size):
            block = buffer[: count - start]
            self._fill(block, start, count)
            yield block
        self._finish()

    def _fill(self, block: UInt8[ndarray, "byte"], start: int, count: int) -> None:
        filled = 0
        while filled < len(block):
            chunk = self._rest or memoryview(next(self._chunks, b""))
            if not chunk:
                found = start + filled
                raise CaseError("E_TRUNCATED", f"found {found} bytes of voxels, expected {count} from the header")
            size = min(len(chunk), len(block) - filled)
            block[filled : filled + size] = chunk[:size]
            self._rest, filled = chunk[size:], filled + size

    def _finish(self) -> None:
        tail = len(self._rest)
        for chunk in self._chunks:
            tail += len(chunk)
            if tail > _LARGEST_TAIL:
                raise CaseError("E_TOO_LARGE", f"more than {_LARGEST_TAIL} bytes follow the voxels, expected none")

    def check_size(self, count: int) -> None:
        """Refuse a header that asks for more than the file can hold, or than we are ready to hold."""
        if count > _LARGEST_BYTES:
            raise CaseError(
                "E_TOO_LARGE", f"the header asks for {count} bytes of voxels, expected at most {_LARGEST_BYTES}"
            )
        if self._packing == "plain" and count > self._stored_bytes:
            raise CaseError(
                "E_TRUNCATED", f"the file holds {self._stored_bytes} bytes, expected {count} of voxels from the header"
            )
        if self._packing != "plain" and count > self._stored_bytes * _LARGEST_DEFLATE_RATIO:
            raise CaseError(
                "E_TOO_LARGE",
                f"the header asks for {count} bytes of voxels, more than {self._stored_bytes} {self._packing} bytes can hold",
            )


def _plain(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as handle:
        handle.seek(offset)
        while chunk := handle.read(_CHUNK):
            yield chunk


def _inflated(path: Path, offset: int, packing: str) -> Iterator[bytes]:
    """Every gzip member in turn; zlib itself compares checksum and length at the end of each."""
    members = 0
    with path.open("rb") as handle:
        handle.seek(offset)
        waiting = handle.read(_CHUNK)
        while waiting:
            if members and not waiting.strip(b"\0"):
                waiting = handle.read(_CHUNK)
                continue
            member = zlib.decompressobj(wbits=_WINDOW_BITS[packing])
            while not member.eof:
                if not waiting and not (waiting := handle.read(_CHUNK)):
                    raise CaseError(
                        "E_GZIP_TRUNCATED", f"the {packing} data ends before its checksum: the file is incomplete"
                    )
                try:
                    chunk = member.decompress(waiting, _CHUNK)
                except zlib.error:
                    raise CaseError(
                        "E_GZIP_CRC", f"the {packing} data is damaged: it does not match its checksum"
                    ) from None
                waiting = member.unconsumed_tail
                if chunk:
                    yield chunk
            members += 1
            waiting = member.unused_data or handle.read(_CHUNK)
