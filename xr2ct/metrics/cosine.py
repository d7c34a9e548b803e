"""Cosine similarity of two volumes."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def cosine(true: Float[ndarray, "z y x"], predicted: Float[ndarray, "z y x"]) -> float:
    """Cosine of the angle between the volumes as vectors: 1 for proportional ones, NaN if one is zero or empty.

    It depends on what counts as zero: xr2ct takes it on the window mapped to 0..1, zero being the window's low end.
    """
    a, b = true.astype(np.float64).ravel(), predicted.astype(np.float64).ravel()
    length = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / length) if length else float("nan")
