"""A case in a voxel grid that begins elsewhere: other positions of the same patient in the grid, under the same X-rays.

Nothing is simulated again: patient, X-rays and scanner stay where they are and only the grid moves. Inside the old grid that is
exact for any beam; the few voxels beyond it get the CT of the nearest voxel, and no label.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np
from jaxtyping import Int, Shaped
from numpy import ndarray

from xr2ct.cases import Example
from xr2ct.shards import IGNORE

Shift = Int[ndarray, "3"]  # voxels (z, y, x)


def randomly_moved(examples: Sequence[Example], most: int, random: np.random.Generator) -> list[Example]:
    """Every case in a grid that begins up to `most` voxels elsewhere along each axis.

    How far depends on the generator and the case alone: processes that share a batch move its cases as one would.
    """
    key = int(random.integers(2**32))
    return [
        with_moved_grid(example, random_shift(most, [key, crc32(example.case.id.encode())])) for example in examples
    ]


def random_shift(most: int, seed: Sequence[int]) -> Shift:
    """Up to `most` voxels either way along every axis."""
    return np.random.default_rng(seed).integers(-most, most + 1, size=3)


def with_moved_grid(example: Example, shift: Shift) -> Example:
    """The case in a grid of the same shape that begins `shift` voxels (z, y, x) later.

    Beyond the old grid the CT is that of the nearest voxel, and the label IGNORE.
    """
    case = example.case
    affine = case.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ shift[::-1]
    ct_hu = moved(case.ct_hu, shift, mode="edge")
    label = moved(case.label, shift, mode="constant", constant_values=IGNORE)
    return replace(example, case=replace(case, affine=affine, ct_hu=ct_hu, label=label))


def moved(volume: Shaped[ndarray, "z y x"], shift: Shift, **beyond: Any) -> Shaped[ndarray, "z y x"]:
    """The volume from voxel `shift` on, and as np.pad fills what is `beyond`."""
    kept = tuple(slice(max(by, 0), n + min(by, 0)) for by, n in zip(shift, volume.shape, strict=True))
    return np.pad(volume[kept], [(max(-by, 0), max(by, 0)) for by in shift], **beyond)
