"""From a line integral to a picture: pure steps to apply one after the other, each named for what it does.

Nothing here changes what is stored: -log(I/I0) stays in the file, contrast is a matter of looking. Dense is bright, as on
film: bones white, air black; `invert` gives the dark bones of a fluoroscope.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Real, UInt8
from numpy import ndarray

from pipeline.errors import UserError

PERCENTILES = (1.0, 99.5)
OPEN_FIELD_SHARE = 0.2
"""What lies below this share of the white value is open field: it must not take grey levels from the anatomy."""


def neg_log(intensity: Real[ndarray, "v u"], i0: float, *, floor: float = 1e-6) -> Float[ndarray, "v u"]:
    """Line integral -log(I / I0) of a detector signal; I / I0 below `floor` (no photon came) counts as `floor`.

    `i0` is the signal of the open field in the units of `intensity`; noise above it gives values below 0.
    """
    if not 0 < i0 < np.inf:
        raise UserError(f"i0 is {i0!r}; expected the positive signal of the open field. Measure it without an object.")
    return -np.log(np.maximum(intensity / i0, floor))


def percentile_window(
    image: Real[ndarray, "..."], low: float = PERCENTILES[0], high: float = PERCENTILES[1]
) -> tuple[float, float]:
    """Values below and above which `low` and 100 - `high` percent of the pixels lie; one apart for a constant image."""
    if not 0 <= low < high <= 100:
        raise UserError(f"percentiles {low:g} and {high:g}; expected 0 <= low < high <= 100. Swap or correct them.")
    black, white = (float(value) for value in np.percentile(image, [low, high]))
    return black, white if white > black else black + 1.0


def anatomy_window(image: Real[ndarray, "... v u"]) -> tuple[float, float]:
    """`percentile_window` of what the object covers, as radiography units find it: pixels above OPEN_FIELD_SHARE.

    The share counts from 0, the open field's line integral, to the 99.5th percentile of the whole image.
    """
    _, white = percentile_window(image)
    covered = image[image > OPEN_FIELD_SHARE * white]
    return percentile_window(covered if covered.size else image)


def window(image: Real[ndarray, "v u"], low: float, high: float) -> Float[ndarray, "v u"]:
    """`low` and below becomes 0 (black), `high` and above 1 (white), linear between."""
    if not low < high:
        raise UserError(
            f"display window {low:g} to {high:g}; expected the value shown black first. Swap or correct them."
        )
    return np.clip((image.astype(np.float64) - low) / (high - low), 0.0, 1.0)


def clahe(unit: Float[ndarray, "v u"], *, tiles: int = 8, clip_limit: float = 0.01) -> Float[ndarray, "v u"]:
    """Contrast-limited adaptive histogram equalisation of a picture in [0, 1], as X2BR applies it to its DRRs.

    `tiles` per side, each equalised on its own and blended; `clip_limit` is the largest share of a tile's pixels that
    one grey level may hold. The paper names neither: these are scikit-image's defaults. A constant picture stays.
    """
    from skimage.exposure import equalize_adapthist

    if np.ptp(unit) == 0:
        return unit.astype(np.float64)
    kernel = tuple(max(1, size // tiles) for size in unit.shape)
    return equalize_adapthist(unit.astype(np.float64), kernel_size=kernel, clip_limit=clip_limit)


def invert(unit: Float[ndarray, "v u"]) -> Float[ndarray, "v u"]:
    """Black for white."""
    return 1.0 - unit


def to_8bit(unit: Float[ndarray, "v u"]) -> UInt8[ndarray, "v u"]:
    """[0, 1] to 0..255, rounded; values outside are cut."""
    return np.rint(np.clip(unit, 0.0, 1.0) * 255).astype(np.uint8)
