"""Arrays as PNG: greys, labels and error maps with fixed scales."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Real, UInt8
from numpy import ndarray
from PIL import Image

DISPLAY_HU = (-900.0, 700.0)
ERROR_HU = 1000.0
LABEL_ALPHA = 115
IGNORE = 255
COLOURS = (
    *("#4c9be8", "#c8b6ff", "#e4572e", "#f3a712", "#8ee3c8", "#e8d3a2", "#b07aa1", "#f28e8b", "#6ab04c", "#d88c4a"),
    *("#c44e8a", "#9c6b3c", "#7a77d6", "#55c1b8", "#d4d15a", "#f7a8c4", "#5e8c6a", "#a9c2ff", "#ff7f50", "#c9b1e8"),
)
ERROR_STOPS = (
    *((-1.0, (120, 190, 255)), (-0.5, (30, 90, 190)), (0.0, (12, 12, 14))),
    *((0.5, (190, 60, 25)), (1.0, (255, 200, 110))),
)


def colour(value: int) -> str:
    """Colour of a structure id from 1 on; they repeat after len(COLOURS)."""
    return COLOURS[(value - 1) % len(COLOURS)]


def grey(values: Real[ndarray, "rows columns"], low: float, high: float) -> Image.Image:
    """`low` black, `high` white."""
    unit = np.clip((values.astype(np.float64) - low) / max(high - low, 1e-12), 0, 1)
    return Image.fromarray(np.rint(unit * 255).astype(np.uint8))


def radiograph(line_integral: Float[ndarray, "v u"]) -> Image.Image:
    """Dense is bright, as on film; black is 0, white the 99.8th percentile of this image."""
    return grey(line_integral, 0.0, float(np.percentile(line_integral, 99.8)))


def labels(values: UInt8[ndarray, "rows columns"]) -> Image.Image:
    """Translucent colours to lay over a CT slice; background and ignored voxels are clear."""
    palette = np.zeros((256, 3), np.uint8)
    for value in range(1, IGNORE):
        palette[value] = _rgb(colour(value))
    image = _indexed(values, palette)
    image.info["transparency"] = bytes(0 if value in (0, IGNORE) else LABEL_ALPHA for value in range(256))
    return image


def laid_over(image: Image.Image, values: UInt8[ndarray, "rows columns"]) -> Image.Image:
    """A CT slice with its labels over it in translucent colours, scaled to its size."""
    over = labels(np.ascontiguousarray(values)).convert("RGBA").resize(image.size, Image.Resampling.NEAREST)
    return Image.alpha_composite(image.convert("RGBA"), over).convert("RGB")


def error_map(difference_hu: Float[ndarray, "rows columns"]) -> Image.Image:
    """Reconstruction minus truth: blue too low, black equal, orange too high; saturates at +-ERROR_HU."""
    unit = np.clip(difference_hu / ERROR_HU, -1, 1)
    at = np.linspace(-1, 1, 256)
    stops = [stop for stop, _ in ERROR_STOPS]
    palette = np.stack([np.interp(at, stops, [rgb[c] for _, rgb in ERROR_STOPS]) for c in range(3)], axis=1)
    return _indexed(np.rint((unit + 1) / 2 * 255).astype(np.uint8), np.rint(palette).astype(np.uint8))


def _indexed(values: UInt8[ndarray, "rows columns"], palette: UInt8[ndarray, "256 3"]) -> Image.Image:
    image = Image.frombytes("P", values.shape[::-1], values.tobytes())
    image.putpalette(palette.tobytes())
    return image


def data_uri(image: Image.Image) -> str:
    """The picture as a PNG inside the page."""
    return png_uri(png(image))


def png_uri(content: bytes) -> str:
    """The bytes of a PNG file inside the page."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def error_gradient() -> str:
    """The scale of `error_map` as a CSS gradient."""
    stops = ", ".join(f"rgb{rgb} {(stop + 1) * 50:g}%" for stop, rgb in ERROR_STOPS)
    return f"linear-gradient(90deg, {stops})"


def _rgb(text: str) -> Sequence[int]:
    return [int(text[i : i + 2], 16) for i in (1, 3, 5)]
