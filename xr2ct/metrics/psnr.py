"""Peak signal-to-noise ratio of a whole volume."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from xr2ct.metrics.mse import mse


def psnr(true: Float[ndarray, "z y x"], predicted: Float[ndarray, "z y x"], *, data_range: float) -> float:
    """10 log10(data_range^2 / MSE) in dB, the MSE pooled over all voxels; inf for equal volumes, NaN for empty ones."""
    error = mse(true, predicted)
    return float("inf") if error == 0 else float(10 * np.log10(data_range**2 / error))
