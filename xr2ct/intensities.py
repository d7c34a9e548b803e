"""From what a picture stores to line integrals -log(I / I0), or to a guess of them where it is a windowed display image."""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from xr2ct.errors import UserError
from xr2ct.image_files import Picture

INTENSITIES = ("auto", "line-integral", "transmission", "display")
OPEN_FIELD_PERCENTILE = 99.5
LARGEST = 50.0  # of a line integral: exp(-50) of the photons is none


def choose_intensity(picture: Picture) -> str:
    """What `auto` means: fractions in NPY, NIfTI or TIFF are line integrals, a DICOM linear in exposure transmission."""
    if picture.relation == "LIN":
        return "transmission"
    return "display" if picture.whole_numbers else "line-integral"


def as_line_integral(values: Float[ndarray, "v u"], name: str) -> tuple[Float[ndarray, "v u"], str]:
    """The values as they are, and what was done in words."""
    if not -1 <= np.median(values) <= LARGEST or values.max() > LARGEST:
        raise UserError(
            f"the image of view {name} reaches from {values.min():g} to {values.max():g}; expected line integrals "
            f"-log(I/I0), 0 to about 15. Use --intensity transmission or display."
        )
    return values, "line integrals as stored"


def from_transmission(values: Float[ndarray, "v u"], i0: float | None, name: str) -> tuple[Float[ndarray, "v u"], str]:
    """-log(I / I0); without `i0` a high percentile stands for the open field. No light counts as the least there is."""
    origin = "given"
    if i0 is None:
        i0, origin = float(np.percentile(values, OPEN_FIELD_PERCENTILE)), f"the {OPEN_FIELD_PERCENTILE:g}th percentile"
    if not 0 < i0 < np.inf:
        raise UserError(f"I0 of view {name} is {i0:g}; expected the positive signal of the open field. Give --i0.")
    if not (values > 0).any():
        raise UserError(
            f"the image of view {name} has no pixel above 0; expected a transmission. Give the right image."
        )
    least = float(values[values > 0].min())
    dark = float((values <= 0).mean())
    said = f"-log(I/I0), I0 = {i0:g} ({origin})" + (f", {dark:.1%} of the pixels without signal" if dark else "")
    return -np.log(np.maximum(values, least) / i0), said


def as_brightness(picture: Picture, inverted: bool) -> Float[ndarray, "v u"]:
    """The picture as a viewer shows it, dense parts bright; `inverted` says that it shows bone dark."""
    return -picture.values if picture.low_is_white != inverted else picture.values


def match_training(
    image: Float[ndarray, "v u"], seen: Bool[ndarray, "v u"], mean: float, scale: float
) -> Float[ndarray, "v u"]:
    """Brightness stretched to the mean and SD of the training's line integrals; what was not seen stays 0."""
    inside = image[seen]
    spread = inside.std()
    if not spread:
        raise UserError("a display image is constant where the volume appears. Correct the geometry or the image.")
    return np.where(seen, (image - inside.mean()) / spread * scale + mean, 0.0)
