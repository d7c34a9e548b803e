"""A CT that cannot be mistaken for its mirror image, and what every refusal must look like: for the reader tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import CaseError
from pipeline.read import Volume, read_volume

SHAPE = (24, 20, 16)
AFFINE = np.array([[2.0, 0, 0, -30], [0, 3.0, 0, 15], [0, 0, 2.5, 400], [0, 0, 0, 1]])
"""RAS, 2 x 3 x 2.5 mm: the volume measures 48 x 60 x 40 mm."""
MARKS = {1001: (5, 3, 2), 1102: (19, 4, 3), 1203: (6, 15, 4), 1304: (7, 5, 12)}
"""HU -> index (i, j, k) of four single voxels; none is centred, together they fix every axis and its direction."""
MARKS_MM = {1001: (-20, 24, 405), 1102: (8, 27, 407.5), 1203: (-18, 60, 410), 1304: (-16, 30, 430)}
"""The same in RAS mm, by hand: -30 + 2 i, 15 + 3 j, 400 + 2.5 k."""
SENTINEL = "ZZPHI^TEST"


def ct_phantom() -> np.ndarray:
    """int16 HU (i, j, k): air, an off-centre body with fat, muscle, bone and noise, four marks."""
    noise = np.random.default_rng(3).normal(0, 8, SHAPE)
    ct = np.full(SHAPE, -1000.0)
    ct[3:22, 2:17, 1:14] = -90
    ct[4:21, 3:16, 1:14] = 45
    ct[8:12, 9:14, 1:14] = 420
    ct = np.rint(ct + noise).clip(-1024).astype(np.int16)
    for value, index in MARKS.items():
        ct[index] = value
    return ct


def marks_in_world(volume: Volume) -> dict[int, tuple[float, ...]]:
    """Where the marks of a volume that was read lie in RAS mm."""
    found = {}
    for value in MARKS:
        (index,) = np.argwhere(volume.data == value)
        found[value] = tuple(np.round(volume.affine @ [*index, 1], 3)[:3])
    return found


def refused(path: Path, code: str, *words: str, read=read_volume) -> str:
    """The reason for which `path` is refused with `code`: a sentence that names no file and no person."""
    with pytest.raises(CaseError) as caught:
        read(path)
    reason = caught.value.reason
    assert caught.value.code == code, f"{caught.value.code}: {reason}"
    assert "\n" not in reason and 20 < len(reason) < 300
    for private in (SENTINEL, "/", path.name):
        assert private not in reason
    for word in words:
        assert word in reason, reason
    return reason
