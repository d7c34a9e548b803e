"""Every metric by the name that tables carry; the name states convention and range."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from jaxtyping import Bool, Float, Real
from numpy import ndarray

from xr2ct.metrics.cosine import cosine
from xr2ct.metrics.dice import dice
from xr2ct.metrics.mae import mae
from xr2ct.metrics.mse import mse
from xr2ct.metrics.psnr import psnr
from xr2ct.metrics.ssim import ssim
from xr2ct.metrics.surface import BorderDistances, border_distances, chamfer, hd95
from xr2ct.metrics.window import Window

VolumeMetrics = Mapping[str, tuple[str, Callable[[ndarray, ndarray, Window], float]]]
StructureMetrics = Mapping[str, tuple[str, Callable[[ndarray, ndarray, BorderDistances], float]]]

VOLUME_METRICS: VolumeMetrics = MappingProxyType(
    {
        "psnr_{window}_range1": ("dB", lambda a, b, window: psnr(window.to_unit(a), window.to_unit(b), data_range=1.0)),
        "ssim3d_gauss11_sigma1.5_{window}_range1": (
            "1",
            lambda a, b, window: ssim(window.to_unit(a), window.to_unit(b), data_range=1.0),
        ),
        "mae_{window}": ("HU", lambda a, b, window: mae(window.clip(a), window.clip(b))),
        "mse_{window}": ("HU^2", lambda a, b, window: mse(window.clip(a), window.clip(b))),
        "cosine_{window}_range1": ("1", lambda a, b, window: cosine(window.to_unit(a), window.to_unit(b))),
    }
)
"""Name -> (unit, function of the true and the predicted HU volume and the window)."""

STRUCTURE_METRICS: StructureMetrics = MappingProxyType(
    {
        "dice": ("1", lambda true, predicted, distances: dice(true, predicted)),
        "hd95": ("mm", lambda true, predicted, distances: hd95(distances)),
        "chamfer": ("mm", lambda true, predicted, distances: chamfer(distances)),
    }
)
"""Name -> (unit, function of the true and the predicted mask and the distances of their borders)."""


def compare_volumes(
    true_hu: Real[ndarray, "z y x"],
    predicted_hu: Real[ndarray, "z y x"],
    window: Window,
    metrics: VolumeMetrics = VOLUME_METRICS,
) -> dict[str, float]:
    """Every volume metric, by its full name."""
    return {name.format(window=window): metric(true_hu, predicted_hu, window) for name, (_, metric) in metrics.items()}


def compare_structures(
    true: Bool[ndarray, "z y x"],
    predicted: Bool[ndarray, "z y x"],
    affine: Float[ndarray, "4 4"],
    metrics: StructureMetrics = STRUCTURE_METRICS,
) -> dict[str, float]:
    """Every structure metric of one structure; the distances are measured once."""
    distances = border_distances(true, predicted, affine)
    return {name: metric(true, predicted, distances) for name, (_, metric) in metrics.items()}
