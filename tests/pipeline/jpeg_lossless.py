"""JPEG Lossless (process 14, first-order prediction), written by hand from the standard: no Python package encodes it."""

from __future__ import annotations

import numpy as np

_MARKERS = {"start": b"\xff\xd8", "end": b"\xff\xd9"}


def encode(pixels: np.ndarray) -> bytes:
    """One unsigned 16-bit image (row, column) as a JPEG Lossless stream; every category has a Huffman code of 5 bits."""
    rows, columns = pixels.shape
    frame = _segment(0xC3, bytes([16]) + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + bytes([1, 1, 0x11, 0]))
    table = _segment(0xC4, bytes([0]) + bytes([0, 0, 0, 0, 17] + [0] * 11) + bytes(range(17)))
    scan = _segment(0xDA, bytes([1, 1, 0, 1, 0, 0]))
    bits = "".join(_code(int(value)) for value in _differences(pixels.astype(np.int64)).ravel())
    bits += "1" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    return _MARKERS["start"] + frame + table + scan + body + _MARKERS["end"]


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def _differences(pixels: np.ndarray) -> np.ndarray:
    """To the left neighbour; the first column to the one above; the first pixel to 32768. Modulo 2^16."""
    predicted = np.empty_like(pixels)
    predicted[:, 1:] = pixels[:, :-1]
    predicted[1:, 0] = pixels[:-1, 0]
    predicted[0, 0] = 1 << 15
    return (pixels - predicted + (1 << 15)) % (1 << 16) - (1 << 15)


def _code(difference: int) -> str:
    if difference == -(1 << 15):
        return f"{16:05b}"
    category = abs(difference).bit_length()
    extra = difference if difference >= 0 else difference + (1 << category) - 1
    return f"{category:05b}" + (f"{extra:0{category}b}" if category else "")
