"""Mean squared error."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def mse(true: Float[ndarray, "z y x"], predicted: Float[ndarray, "z y x"]) -> float:
    """Mean squared difference over all voxels in the squared unit of the input; 0 if equal, NaN for empty volumes."""
    return float(np.mean(np.square(true - predicted, dtype=np.float64))) if true.size else float("nan")
