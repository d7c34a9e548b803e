"""Image metrics as single papers and codes compute them: to set our numbers beside printed ones, never to choose by.

Volumes are HU with axes (z, y, x); a slice "of axis z" is volume[i], of y volume[:, i], of x volume[:, :, i]. Values are
put on the scale that the source uses:

  x2ct    HU + 1024 clipped to 0..2500 and cut to whole numbers (data of X2CT, PerX2CT)
  unit    the evaluation's HU window as 0..1, both volumes clipped to it
  hu      HU as they are
"""

from collections.abc import Callable
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Real
from numpy import ndarray

from xr2ct.metrics.legacy_structures import LEGACY_LABEL_METRICS, LEGACY_STRUCTURE_METRICS
from xr2ct.metrics.psnr import psnr
from xr2ct.metrics.registry import VolumeMetrics
from xr2ct.metrics.ssim import GAUSS11, ssim_map
from xr2ct.metrics.window import Window

AXES = {"z": 0, "y": 1, "x": 2}
X2CT_OFFSET_HU, X2CT_MAX = 1024, 2500
EQUAL_DB = 100.0  # what X2CT's code returns where the error is zero
UNIFORM7 = np.full(7, 1 / 7)


def to_x2ct(ct_hu: Real[ndarray, "z y x"]) -> Float[ndarray, "z y x"]:
    """HU + 1024 clipped to 0..2500, whole numbers."""
    return np.floor(np.clip(ct_hu.astype(np.float64) + X2CT_OFFSET_HU, 0, X2CT_MAX))


def psnr_x2ct(true_hu: Real[ndarray, "z y x"], predicted_hu: Real[ndarray, "z y x"], *, peak: float) -> float:
    """20 log10(peak / sqrt(MSE)) on x2ct data, MSE over the volume, 100 dB for equal volumes.

    Peak 4095 is X2CT, its spine paper and PerX2CT's slices (4.29 dB more than the data's range gives); 2500 is PerX2CT's
    volume PSNR.
    """
    true, predicted = to_x2ct(true_hu), to_x2ct(predicted_hu)
    return psnr(true, predicted, data_range=peak) if (true != predicted).any() else EQUAL_DB


def psnr_x2ct_slices(
    true_hu: Real[ndarray, "z y x"], predicted_hu: Real[ndarray, "z y x"], *, peak: float, axes: str = "zyx"
) -> float:
    """PSNR per slice of x2ct data, 100 dB for equal slices, averaged over the slices of an axis, then over `axes`.

    X2CT's PSNR-1, -2, -3 are its array axes; its average is that of all three.
    """
    if true_hu.size == 0:
        return float("nan")
    squared = np.square(to_x2ct(true_hu) - to_x2ct(predicted_hu))
    per_axis = []
    for name in axes:
        errors = squared.mean(axis=tuple({0, 1, 2} - {AXES[name]}))
        decibels = 10 * np.log10(peak**2 / np.where(errors == 0, 1, errors))
        per_axis.append(np.where(errors == 0, EQUAL_DB, decibels).mean())
    return float(np.mean(per_axis))


def psnr_gtrange(true: Float[ndarray, "z y x"], predicted: Float[ndarray, "z y x"]) -> float:
    """Peak max(true) - min(true), MSE over the volume (SCOPE, Polyner, Spener); NaN for a true volume of one value."""
    return psnr_to_peak(true, predicted, float(np.ptp(true)) if true.size else 0.0)


def psnr_gtmax(true: Float[ndarray, "z y x"], predicted: Float[ndarray, "z y x"]) -> float:
    """Peak max(true) on non-negative data, MSE over the volume (R2-Gaussian); NaN for a true volume of zeros."""
    return psnr_to_peak(true, predicted, float(true.max()) if true.size else 0.0)


def psnr_minmax(true: Float[ndarray, "z y x"], predicted: Float[ndarray, "z y x"]) -> float:
    """Both volumes stretched from their own minimum and maximum to 0..1, peak 1 (NAF, Geometry-Aware).

    Blind to any error of scale and offset; NaN if a volume has one value.
    """
    if not (true.size and np.ptp(true) and np.ptp(predicted)):
        return float("nan")
    a, b = ((volume - volume.min()) / np.ptp(volume) for volume in (true.astype(float), predicted.astype(float)))
    return psnr(a, b, data_range=1.0)


def psnr_to_peak(true: Float[ndarray, "z y x"], predicted: Float[ndarray, "z y x"], peak: float) -> float:
    return psnr(true, predicted, data_range=peak) if peak else float("nan")


def ssim_skimage(true: Float[ndarray, "z y x"], predicted: Float[ndarray, "z y x"], *, data_range: float) -> float:
    """scikit-image's default on a volume: uniform 7^3 window, sample covariance, voxels whose window lies inside.

    data_range 2 is its default for floats, wrong for data of 0..1 (PSR, DIF-Net, DIF-Gaussian's paper); 1 is PerX2CT's
    volume SSIM. NaN for a volume thinner than 7.
    """
    return _uniform7(true, predicted, data_range, (0, 1, 2))


def ssim_skimage_slices(
    true: Float[ndarray, "z y x"], predicted: Float[ndarray, "z y x"], *, data_range: float, axes: str = "zyx"
) -> float:
    """The same with a 7 x 7 window in each slice, averaged over the slices of an axis, then over `axes`.

    data_range 1 is X2CT (compare_ssim, multichannel), 2 PerX2CT's slices (default range). NaN for slices under 7.
    """
    return float(np.mean([_uniform7(true, predicted, data_range, _others(name)) for name in axes]))


def ssim_r2_slices(true: Float[ndarray, "z y x"], predicted: Float[ndarray, "z y x"]) -> float:
    """R2-Gaussian: 11 x 11 Gaussian (sigma 1.5) in each slice, zeros beyond the border, range 1, population variances.

    Averaged over the slices of an axis whose true maximum is above 0, then over the three axes; NaN without such slices.
    """
    if not (true.size and true.max() > 0):
        return float("nan")
    per_axis = []
    for name in AXES:
        others = _others(name)
        per_slice = ssim_map(true, predicted, data_range=1.0, weights=GAUSS11, axes=others, inside=False).mean(others)
        per_axis.append(per_slice[true.max(axis=others) > 0].mean())
    return float(np.mean(per_axis))


def _uniform7(true: ndarray, predicted: ndarray, data_range: float, axes: tuple[int, ...]) -> float:
    if true.size == 0 or min(true.shape[axis] for axis in axes) < len(UNIFORM7):
        return float("nan")
    samples = len(UNIFORM7) ** len(axes)
    unbias = samples / (samples - 1)
    found = ssim_map(true, predicted, data_range=data_range, weights=UNIFORM7, axes=axes, unbias=unbias)
    return float(np.mean(found))


def _others(name: str) -> tuple[int, ...]:
    return tuple(axis for axis in range(3) if axis != AXES[name])


def _hu(metric: Callable[..., float], **options: object) -> Callable[[ndarray, ndarray, Window], float]:
    """A metric of HU volumes, whatever the window."""
    return lambda true, predicted, window: metric(true, predicted, **options)


def _unit(metric: Callable[..., float], **options: object) -> Callable[[ndarray, ndarray, Window], float]:
    """A metric of the window as 0..1."""
    return lambda true, predicted, window: metric(window.to_unit(true), window.to_unit(predicted), **options)


def _x2ct_unit(metric: Callable[..., float], **options: object) -> Callable[[ndarray, ndarray, Window], float]:
    """A metric of x2ct data before they are scaled to 2500 and cut: HU from -1024 to 1476 as 0..1."""
    own = Window(-float(X2CT_OFFSET_HU), float(X2CT_MAX - X2CT_OFFSET_HU))
    return lambda true, predicted, window: metric(own.to_unit(true), own.to_unit(predicted), **options)


def _psnr_ear(true_hu: ndarray, predicted_hu: ndarray, window: Window) -> float:
    """EAR: peak 4096 on HU as they are, MSE over the volume; its printed MSE, MAE and SSIM are of z-scores."""
    return psnr(true_hu.astype(np.float64), predicted_hu.astype(np.float64), data_range=4096.0)


LEGACY_VOLUME_METRICS: VolumeMetrics = MappingProxyType(
    {
        "psnr_x2ct4095": ("dB", _hu(psnr_x2ct, peak=4095.0)),
        "psnr_x2ct4095_slices": ("dB", _hu(psnr_x2ct_slices, peak=4095.0)),
        "psnr_x2ct4095_slices_z": ("dB", _hu(psnr_x2ct_slices, peak=4095.0, axes="z")),
        "psnr_x2ct4095_slices_y": ("dB", _hu(psnr_x2ct_slices, peak=4095.0, axes="y")),
        "psnr_x2ct4095_slices_x": ("dB", _hu(psnr_x2ct_slices, peak=4095.0, axes="x")),
        "psnr_perx2ct2500": ("dB", _hu(psnr_x2ct, peak=2500.0)),
        "psnr_ear4096": ("dB", _psnr_ear),
        "psnr_gtrange": ("dB", _unit(psnr_gtrange)),
        "psnr_r2gtmax": ("dB", _unit(psnr_gtmax)),
        "psnr_nafminmax": ("dB", _unit(psnr_minmax)),
        "psnr_range2": ("dB", _unit(psnr, data_range=2.0)),
        "ssim_x2ct_slices": ("1", _x2ct_unit(ssim_skimage_slices, data_range=1.0)),
        "ssim_skimage1": ("1", _unit(ssim_skimage, data_range=1.0)),
        "ssim_skimage2": ("1", _unit(ssim_skimage, data_range=2.0)),
        "ssim_skimage2_slices": ("1", _unit(ssim_skimage_slices, data_range=2.0)),
        "ssim_r2gauss11_slices": ("1", _unit(ssim_r2_slices)),
    }
)
"""As VOLUME_METRICS."""

LEGACY_METRICS = frozenset([*LEGACY_VOLUME_METRICS, *LEGACY_STRUCTURE_METRICS, *LEGACY_LABEL_METRICS])
"""The names of all, those of structures too: they never share a table with ours."""
