"""Which voxels a training step looks at: all ways see `points` ** 3 voxels of every case and leave none out of reach."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from xr2ct.sampling import Lattice, Points, comb
from xr2ct.shards import IGNORE

LINES = 64  # searched for a structure's surface at once


@runtime_checkable
class DrawSettings(Protocol):
    """What a draw reads of the settings."""

    points: int  # voxels per axis of a comb, its cube everywhere else
    run: int  # neighbours of a comb
    scattered_points: int  # voxels of a uniform draw; 0 = points ** 3
    block: int  # edge of a box
    surface_share: float  # of the boxes, that lie on a structure's surface


Shape = tuple[int, ...]
Draw = list[Lattice | Points]


def draw_comb(shape: Shape, settings: DrawSettings, labels: Sequence[ndarray], random: np.random.Generator) -> Draw:
    """One lattice (z, y, x) over the whole grid."""
    return [comb(shape, settings.points, settings.run, random)]


def draw_uniform(shape: Shape, settings: DrawSettings, labels: Sequence[ndarray], random: np.random.Generator) -> Draw:
    """Single voxels, index [n, 3] as (z, y, x), all equally likely."""
    count = settings.scattered_points or settings.points**3
    return [Points(random.integers(0, shape, size=(count, 3)), shape)]


def draw_blocks(shape: Shape, settings: DrawSettings, labels: Sequence[ndarray], random: np.random.Generator) -> Draw:
    """Boxes of neighbouring voxels, index [n, 3] as (z, y, x), some of them on structures of the `labels` (z, y, x)."""
    return [blocks(shape, settings.points**3, settings.block, settings.surface_share, labels, random)]


def draw_mixed(shape: Shape, settings: DrawSettings, labels: Sequence[ndarray], random: np.random.Generator) -> Draw:
    """Half of the voxels from a comb, half in boxes."""
    half = settings.points**3 // 2
    return [
        comb(shape, max(round(half ** (1 / 3)), 1), settings.run, random),
        blocks(shape, half, settings.block, settings.surface_share, labels, random),
    ]


DRAWS: dict[str, Callable[[Shape, DrawSettings, Sequence[ndarray], np.random.Generator], Draw]] = {
    "comb": draw_comb,
    "uniform": draw_uniform,
    "blocks": draw_blocks,
    "mixed": draw_mixed,
}


def blocks(
    shape: Shape,
    points: int,
    edge: int,
    surface_share: float,
    labels: Sequence[ndarray],
    random: np.random.Generator,
) -> Points:
    """About `points` voxels in boxes of `edge` voxels a side that go on at the opposite face where they leave the grid.

    A box lies anywhere, all voxels equally likely, or with probability `surface_share` around a voxel on the surface of a
    structure in one of the `labels`; where no surface is found, anywhere.
    """
    size = np.minimum(edge, shape)
    offsets = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1).reshape(-1, 3)
    index = []
    for _ in range(max(round(points / math.prod(size)), 1)):
        start = random.integers(0, shape)
        if random.random() < surface_share:
            centre = surface_voxel(labels[random.integers(len(labels))], random)
            start = start if centre is None else (centre - size // 2).clip(0, np.array(shape) - size)
        index.append((start + offsets) % shape)
    return Points(np.concatenate(index), shape)


def surface_voxel(label: UInt8[ndarray, "z y x"], random: np.random.Generator) -> Int[ndarray, "3"] | None:
    """A voxel of a structure that has another known label beside it, found along random lines of the grid: a surface is hit
    in proportion to its area. None if no line crosses one."""
    axis = int(random.integers(3))
    lines = np.moveaxis(label, axis, -1)
    place = random.integers(0, lines.shape[:2], size=(LINES, 2))
    values = lines[place[:, 0], place[:, 1]]
    line, before = np.nonzero(values[:, 1:] != values[:, :-1])
    sides = np.stack([before, before + 1], axis=1)
    beside = values[line[:, None], sides]
    structure = (beside != 0) & (beside != IGNORE).all(axis=1, keepdims=True)
    crossing, side = np.nonzero(structure)
    if not len(crossing):
        return None
    chosen = random.integers(len(crossing))
    found = line[crossing[chosen]]
    return np.insert(place[found], axis, sides[crossing[chosen], side[chosen]])
