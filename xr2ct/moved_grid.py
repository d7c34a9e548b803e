"""A case in a voxel grid that begins elsewhere: other positions of the same patient in the grid, under the same X-rays.

Nothing is simulated again: patient, X-rays and scanner stay where they are, only the grid moves, so it is exact for any beam.
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

Step = Int[ndarray, "3"]  # voxels (z, y, x)


def randomly_moved(examples: Sequence[Example], most: int, random: np.random.Generator) -> list[Example]:
    """Every case in a grid that begins up to `most` voxels elsewhere along each axis.

    How far depends on the generator and the case alone: processes that share a batch move its cases as one would.
    """
    key = int(random.integers(2**32))
    return [with_moved_grid(example, random_step(most, [key, crc32(example.case.id.encode())])) for example in examples]


def random_step(most: int, seed: Sequence[int]) -> Step:
    """Up to `most` voxels either way along every axis."""
    return np.random.default_rng(seed).integers(-most, most + 1, size=3)


def with_moved_grid(example: Example, step: Step) -> Example:
    """The case in a grid of the same shape that begins `step` voxels (z, y, x) later.

    Beyond the old grid the CT is that of the nearest voxel, and the label IGNORE.
    """
    case = example.case
    affine = case.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ step[::-1]
    ct_hu = moved(case.ct_hu, step, mode="edge")
    label = moved(case.label, step, mode="constant", constant_values=IGNORE)
    return replace(example, case=replace(case, affine=affine, ct_hu=ct_hu, label=label))


def moved(volume: Shaped[ndarray, "z y x"], step: Step, **beyond: Any) -> Shaped[ndarray, "z y x"]:
    """The volume from voxel `step` on, and as np.pad fills what is `beyond`."""
    kept = tuple(slice(max(by, 0), n + min(by, 0)) for by, n in zip(step, volume.shape, strict=True))
    return np.pad(volume[kept], [(max(-by, 0), max(by, 0)) for by in step], **beyond)
