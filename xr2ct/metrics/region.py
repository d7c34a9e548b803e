"""Image metrics inside and outside the labelled structures (SPIDER, Fig. 4 and 5)."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from jaxtyping import Bool, Real
from numpy import ndarray

from xr2ct.metrics.mae import mae
from xr2ct.metrics.psnr import psnr
from xr2ct.metrics.window import Window


def _psnr(true_hu: ndarray, predicted_hu: ndarray, window: Window) -> float:
    return psnr(window.to_unit(true_hu), window.to_unit(predicted_hu), data_range=1.0)


def _mae(true_hu: ndarray, predicted_hu: ndarray, window: Window) -> float:
    return mae(window.clip(true_hu), window.clip(predicted_hu))


REGION_METRICS: Mapping[str, tuple[str, str, Callable[[ndarray, ndarray, Window], float]]] = MappingProxyType(
    {
        "psnr-inside_{window}_range1": ("dB", "inside", _psnr),
        "psnr-outside_{window}_range1": ("dB", "outside", _psnr),
        "mae-inside_{window}": ("HU", "inside", _mae),
        "mae-outside_{window}": ("HU", "outside", _mae),
    }
)
"""Name -> (unit, region, function of the true and the predicted HU of its voxels, wherever they lie, and the window)."""


def compare_regions(
    true_hu: Real[ndarray, "z y x"],
    predicted_hu: Real[ndarray, "z y x"],
    masks: Mapping[str, Bool[ndarray, "z y x"]],
    window: Window,
) -> dict[str, float]:
    """Every region metric, by its full name; `masks` gives the voxels of each region, NaN where there are none."""
    voxels = {
        region: tuple(volume[mask].reshape(1, 1, -1) for volume in (true_hu, predicted_hu))
        for region, mask in masks.items()
    }
    return {
        name.format(window=window): metric(*voxels[region], window)
        for name, (_, region, metric) in REGION_METRICS.items()
    }
