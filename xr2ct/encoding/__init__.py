"""Multiresolution hash grid (Instant-NGP; SPIDER eq. 13-16) with tiny-cuda-nn's parameter layout and arithmetic.

grid = HashGrid(make_levels(11, coarsest=16, finest=128, log2_entries=19), features=8, backend="native")
grid(points)  # [n, 3] in [0, 1], as (x, y, z) -> [n, 88]

The table of a trained model, for tiny-cuda-nn (back: `load_tinycudann_state(torch.load("grid.pt"))`):

grid = build_trained(load_checkpoint(Path("model.pt")))[0].position  # of xr2ct.train, xr2ct.checkpoint
torch.save(grid.tinycudann_state(), "grid.pt")
theirs = tinycudann.Encoding(3, tinycudann_config(grid.levels, grid.features), dtype=torch.float32)
theirs.load_state_dict(torch.load("grid.pt"))
"""

from xr2ct.encoding.grid import BACKENDS, INITIAL_RANGE, HashGrid, backend_of_trained, choose_backend, present_backends
from xr2ct.encoding.levels import PRIMES, Level, make_levels, row_of_vertex
from xr2ct.encoding.tinycuda import config as tinycudann_config

__all__ = [
    "BACKENDS",
    "INITIAL_RANGE",
    "PRIMES",
    "HashGrid",
    "Level",
    "backend_of_trained",
    "choose_backend",
    "make_levels",
    "present_backends",
    "row_of_vertex",
    "tinycudann_config",
]
