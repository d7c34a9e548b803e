"""Shards of a few phantoms and the smallest settings, shared by the tests of training and reconstruction."""

import numpy as np

from tests.phantoms import phantom_case, write_phantom_shard

WINDOW = (-1000.0, 1500.0)
TINY = {
    "steps": 6,
    "batch": 2,
    "widths": [4, 8],
    "convolutions": 1,
    "hidden": 8,
    "levels": 3,
    "level_features": 2,
    "coarsest": 4,
    "log2_entries": 8,
    "points": 8,
    "log_steps": 2,
    "watch_steps": 4,
}


def write_cohort(folder, n, *, split="train", seed=0, **changes):
    """`n` phantoms whose content is shifted by up to two voxels per axis."""
    random = np.random.default_rng(seed)
    cases = [phantom_case(f"{split}{i}", shift=tuple(random.uniform(-2, 2, 3)), **changes) for i in range(n)]
    return write_phantom_shard(folder / f"{split}-{seed}.h5", cases, split=split)
