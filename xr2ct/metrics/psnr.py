"""Peak signal-to-noise ratio of a whole volume."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def psnr(true: Float[ndarray, "z y x"], predicted: Float[ndarray, "z y x"], *, data_range: float) -> float:
    """10 log10(data_range^2 / MSE) in dB, the MSE pooled over all voxels; inf for equal volumes, NaN for empty ones."""
    if true.size == 0:
        return float("nan")
    mse = np.mean(np.square(true - predicted, dtype=np.float64))
    return float("inf") if mse == 0 else float(10 * np.log10(data_range**2 / mse))
