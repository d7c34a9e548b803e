"""Bring an X-ray onto pixels like those the model was trained on, its matrix with it: pitch, number and place."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from xr2ct.views import Size, pixel_at

SAME_PITCH = 0.01  # below this difference an image is cropped and padded by whole pixels, not interpolated


@dataclass(frozen=True)
class Fitted:
    """The image on `size` pixels, 0 where it shows nothing (`seen` is False), and the matrix that goes with it."""

    image: Float[ndarray, "v u"]
    seen: Bool[ndarray, "v u"]
    projection: Float[ndarray, "3 4"]
    zoom: tuple[float, float]  # pixels of the file per pixel here, along u and v


def fit_image(
    image: Float[ndarray, "rows columns"],
    projection: Float[ndarray, "3 4"],
    centre_mm: Float[ndarray, "3"],
    *,
    trained_projection: Float[ndarray, "3 4"],
    trained_centre_mm: Float[ndarray, "3"],
    size: Size,
) -> Fitted:
    """Resample so that the grid's centre appears at the trained pixel and a millimetre there is as many pixels.

    Shrinking averages over the pixels that fall together; rotations of the detector stay as they are.
    """
    at, per_mm = pixel_at(projection, centre_mm)
    trained_at, trained_per_mm = pixel_at(trained_projection, trained_centre_mm)
    zoom = per_mm / trained_per_mm
    start = at - zoom * trained_at  # pixel of the file where pixel 0 here lies
    if np.abs(zoom - 1).max() < SAME_PITCH:
        zoom, start = np.ones(2), np.rint(start)
    columns, seen_u = _weights(image.shape[1], size[1], float(start[0]), float(zoom[0]))
    rows, seen_v = _weights(image.shape[0], size[0], float(start[1]), float(zoom[1]))
    back = np.array([[1 / zoom[0], 0, -start[0] / zoom[0]], [0, 1 / zoom[1], -start[1] / zoom[1]], [0, 0, 1]])
    seen = seen_v[:, None] & seen_u
    return Fitted(rows @ image @ columns.T * seen, seen, back @ projection, (float(zoom[0]), float(zoom[1])))


def _weights(old: int, new: int, start: float, zoom: float) -> tuple[Float[ndarray, "new old"], Bool[ndarray, "new"]]:
    """Rows of triangle weights, as wide as a new pixel and at least as an old one; and which new centres lie inside."""
    at = start + zoom * np.arange(new)
    seen = (at >= -0.5) & (at <= old - 0.5)
    weight = np.maximum(0, 1 - np.abs(np.arange(old) - np.clip(at, 0, old - 1)[:, None]) / max(zoom, 1.0))
    return weight / weight.sum(axis=1, keepdims=True), seen
