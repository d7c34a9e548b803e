"""Structural similarity in three dimensions (Wang et al., IEEE TIP 2004, with a 3-D window)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.ndimage import correlate1d

SIGMA, TAPS = 1.5, 11
K1, K2 = 0.01, 0.03
GAUSS11 = np.exp(-0.5 * (np.arange(-(TAPS // 2), TAPS // 2 + 1) / SIGMA) ** 2)
GAUSS11 /= GAUSS11.sum()


def ssim(true: Float[ndarray, "z y x"], predicted: Float[ndarray, "z y x"], *, data_range: float) -> float:
    """Mean SSIM over the voxels whose 11^3 Gaussian window (sigma 1.5) lies inside; NaN if there is none.

    1 for equal volumes. Population variances, K1 = 0.01, K2 = 0.03 as in the paper; what scikit-image computes with
    gaussian_weights=True, sigma=1.5, use_sample_covariance=False.
    """
    if min(true.shape) < TAPS:
        return float("nan")
    return float(np.mean(ssim_map(true, predicted, data_range=data_range, weights=GAUSS11)))


def ssim_map(
    true: Float[ndarray, "z y x"],
    predicted: Float[ndarray, "z y x"],
    *,
    data_range: float,
    weights: Float[ndarray, "tap"],
    axes: Sequence[int] = (0, 1, 2),
    inside: bool = True,
    unbias: float = 1.0,
) -> Float[ndarray, "inner_z inner_y inner_x"]:
    """SSIM per voxel with a separable window of `weights` along `axes`; variances and covariance times `unbias`.

    Only voxels whose window lies inside, or (inside=False) all, zeros beyond the border.
    """
    a, b = np.asarray(true, np.float64), np.asarray(predicted, np.float64)

    def mean(volume: ndarray) -> ndarray:
        return window_mean(volume, weights, axes, inside)

    mean_a, mean_b = mean(a), mean(b)
    var_a = unbias * (mean(a * a) - mean_a**2)
    var_b = unbias * (mean(b * b) - mean_b**2)
    covariance = unbias * (mean(a * b) - mean_a * mean_b)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return luminance * structure


def window_mean(
    volume: Float[ndarray, "z y x"], weights: Float[ndarray, "tap"], axes: Sequence[int], inside: bool
) -> Float[ndarray, "inner_z inner_y inner_x"]:
    reach = len(weights) // 2
    for axis in axes:  # each pass is cut to the voxels whose window is complete
        inner = tuple(slice(reach, -reach) if i == axis and inside else slice(None) for i in range(3))
        volume = correlate1d(volume, weights, axis=axis, mode="constant")[inner]
    return volume
