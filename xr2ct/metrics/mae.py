"""Mean absolute error."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def mae(true: Float[ndarray, "z y x"], predicted: Float[ndarray, "z y x"]) -> float:
    """Mean absolute difference over all voxels in the unit of the input; 0 for equal volumes, NaN for empty ones."""
    return float(np.mean(np.abs(true - predicted), dtype=np.float64)) if true.size else float("nan")
