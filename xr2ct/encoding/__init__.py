"""Multiresolution hash grid (Instant-NGP; SPIDER eq. 13-16) with tiny-cuda-nn's parameter layout and arithmetic.

grid = HashGrid(make_levels(11, coarsest=16, finest=128, log2_entries=19), features=8, backend="native")
grid(points)  # [n, 3] in [0, 1], as (x, y, z) -> [n, 88]
"""

from xr2ct.encoding.grid import BACKENDS, INITIAL_RANGE, HashGrid, present_backends
from xr2ct.encoding.levels import PRIMES, Level, make_levels, row_of_vertex
from xr2ct.encoding.tinycuda import config as tinycudann_config

__all__ = [
    "BACKENDS",
    "INITIAL_RANGE",
    "PRIMES",
    "HashGrid",
    "Level",
    "make_levels",
    "present_backends",
    "row_of_vertex",
    "tinycudann_config",
]
