"""tiny-cuda-nn's layout of a multiresolution hash grid: resolutions, rows per level and which row a vertex reads."""

import math
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

PRIMES = (1, 2654435761, 805459861)  # for x, y, z


@dataclass(frozen=True)
class Level:
    """One resolution: `scale` grid steps across the unit cube, its table rows start at row `offset`."""

    scale: float
    resolution: int
    entries: int
    offset: int

    @property
    def dense(self) -> bool:
        """True where every vertex has a row of its own; otherwise vertices share rows by hash."""
        return self.resolution**3 <= self.entries


Levels = tuple[Level, ...]


def make_levels(n_levels: int, coarsest: int, finest: int, log2_entries: int) -> Levels:
    """Geometric resolutions from `coarsest` to `finest`, at most 2**log2_entries rows each."""
    log2_growth = math.log2(finest / coarsest) / max(n_levels - 1, 1)
    levels: list[Level] = []
    for number in range(n_levels):
        scale = 2.0 ** (number * log2_growth) * coarsest - 1.0
        resolution = math.ceil(round(scale, 6)) + 1  # 2**log2 leaves 127.0000001: not a finer grid
        entries = min(8 * math.ceil(resolution**3 / 8), 2**log2_entries)
        levels.append(Level(scale, resolution, entries, rows_of(levels)))
    return tuple(levels)


def rows_of(levels: Levels | list[Level]) -> int:
    """Rows of the whole table."""
    return sum(level.entries for level in levels)


def row_of_vertex(
    level: Level, x: Int[Tensor, "..."], y: Int[Tensor, "..."], z: Int[Tensor, "..."]
) -> Int[Tensor, "..."]:
    """Table row in the level of vertices, broadcast (eq. 14): dense x + y R + z R^2, else XOR of products.

    tiny-cuda-nn multiplies in uint32; the table has 2^T rows, so that the bits it loses never matter.
    """
    if level.dense:
        return (x + y * level.resolution + z * level.resolution**2) % level.entries
    return (x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]) % level.entries
