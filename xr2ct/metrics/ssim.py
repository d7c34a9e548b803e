"""Structural similarity in three dimensions (Wang et al., IEEE TIP 2004, with a 3-D window)."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.ndimage import correlate1d

SIGMA, TAPS = 1.5, 11
K1, K2 = 0.01, 0.03


def ssim(true: Float[ndarray, "z y x"], predicted: Float[ndarray, "z y x"], *, data_range: float) -> float:
    """Mean SSIM over the voxels whose 11^3 Gaussian window (sigma 1.5) lies inside; NaN if there is none.

    1 for equal volumes. Population variances, K1 = 0.01, K2 = 0.03 as in the paper; what scikit-image computes with
    gaussian_weights=True, sigma=1.5, use_sample_covariance=False.
    """
    if min(true.shape) < TAPS:
        return float("nan")
    a, b = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    mean_a, mean_b = _window_mean(a), _window_mean(b)
    var_a = _window_mean(a * a) - mean_a**2
    var_b = _window_mean(b * b) - mean_b**2
    covariance = _window_mean(a * b) - mean_a * mean_b
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return float(np.mean(luminance * structure))


def _window_mean(volume: Float[ndarray, "z y x"]) -> Float[ndarray, "inner_z inner_y inner_x"]:
    reach = TAPS // 2
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / SIGMA) ** 2)
    weights /= weights.sum()
    for axis in range(3):  # each pass is cut to the voxels whose window is complete
        inner = tuple(slice(reach, -reach) if i == axis else slice(None) for i in range(3))
        volume = correlate1d(volume, weights, axis=axis)[inner]
    return volume
