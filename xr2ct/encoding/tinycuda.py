"""The hash grid by tiny-cuda-nn itself: needs its package and an NVIDIA GPU."""

import importlib
import math
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from xr2ct.encoding.levels import Levels, rows_of
from xr2ct.errors import UserError


def config(levels: Levels, features: int) -> dict[str, Any]:
    """What tiny-cuda-nn is to be given for these levels.

    It computes scales in float32, where an exact 127 may become 127.00001, a grid one vertex wider in another layout:
    the growth is then the next smaller float32 that gives these resolutions.
    """
    coarsest = round(levels[0].scale + 1)
    growth = np.float32(((levels[-1].scale + 1) / coarsest) ** (1 / max(len(levels) - 1, 1)))
    wanted = [level.resolution for level in levels]
    for _ in range(100):
        if resolutions(len(levels), coarsest, growth) == wanted:
            break
        growth = np.nextafter(growth, np.float32(0))
    else:
        raise UserError(
            f"tiny-cuda-nn has no growth for the resolutions {wanted}; expected those of make_levels. "
            "Choose another finest resolution."
        )
    return {
        "otype": "HashGrid",
        "n_levels": len(levels),
        "n_features_per_level": features,
        "log2_hashmap_size": math.ceil(math.log2(max(level.entries for level in levels))),
        "base_resolution": coarsest,
        "per_level_scale": float(growth),
        "interpolation": "Linear",
    }


def resolutions(n_levels: int, coarsest: int, growth: np.float32) -> list[int]:
    """tiny-cuda-nn's own, in its float32: ceil(exp2(level log2 growth) coarsest - 1) + 1."""
    step = np.log2(growth)
    scales = np.exp2(np.arange(n_levels, dtype=np.float32) * step) * np.float32(coarsest) - np.float32(1)
    return [math.ceil(scale) + 1 for scale in scales]


@cache
def encoding(levels: Levels, features: int) -> nn.Module:
    """tiny-cuda-nn's module in float32, [n, 3] in [0, 1] -> [n, L * F], made once per layout; its parameters are not used."""
    made = importlib.import_module("tinycudann").Encoding(3, config(levels, features), dtype=torch.float32)
    if made.params.numel() != rows_of(levels) * features:
        raise UserError(
            f"tiny-cuda-nn lays these levels out in {made.params.numel()} parameters; expected "
            f"{rows_of(levels) * features}. Its layout has changed; choose another backend."
        )
    return made


def encode_points(
    table: Float[Tensor, "rows features"], levels: Levels, points: Float[Tensor, "n 3"]
) -> Float[Tensor, "n channels"]:
    """Encode scattered points (x, y, z) with this table in the place of the encoding's own parameters."""
    made = encoding(levels, table.shape[1])
    return torch.func.functional_call(made, {"params": table.flatten()}, (points,))


def missing() -> str:
    """Why this backend cannot be had here, or nothing."""
    try:
        importlib.import_module("tinycudann")
    except Exception as error:  # the package raises OSError where it finds no GPU
        return f"the package tinycudann cannot be imported ({type(error).__name__}: {error})"
    return "" if torch.cuda.is_available() else "there is no CUDA device"
