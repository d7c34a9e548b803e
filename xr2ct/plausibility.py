"""Does a reconstruction agree with the images it was made of, and would they agree better read in another way?

A network follows its images, so that even a mirrored one is met within a few percent: an absolute bound on the difference
cannot see that. But it meets them best when they lie as in its training, so the same images are read again mirrored,
turned, exchanged and in another size, and a reading that fits better is told. Bounds: resources/two_images.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from xr2ct.errors import UserError
from xr2ct.image_fit import Fitted, fit_image
from xr2ct.intensities import match_training
from xr2ct.models.model import Model, Prediction
from xr2ct.reprojection import WATER_PER_MM, Fit, compare, project_volume, to_attenuation
from xr2ct.shards import Xray
from xr2ct.tables import aligned
from xr2ct.views import Geometry, grid_centre, pixel_at, rays_of

LARGEST_RMS, LEAST_CORRELATION, LARGEST_SHIFT_PX = 0.25, 0.96, 1.0
BETTER = 0.93  # a reading is told when its mean relative RMS is below this share of the given one's
SCALES = {"10 % smaller": 1 / 1.1, "10 % larger": 1.1}


@dataclass(frozen=True)
class Input:
    """One view as its file has it: line integrals, or brightness and the (mean, SD) to bring it to."""

    image: Float[ndarray, "v u"]
    level: tuple[float, float] | None


def brought(one: Input, placed: Geometry, trained: Geometry, number: int) -> Fitted:
    """The view on the trained pixels, its intensities as the model knows them."""
    view = fit_image(
        one.image,
        placed.projection[number],
        grid_centre(placed.shape, placed.affine),
        trained_projection=trained.projection[number],
        trained_centre_mm=grid_centre(trained.shape, trained.affine),
        size=trained.sizes[number],
    )
    if not view.seen.any():
        raise UserError(f"view {placed.views[number]}: the image shows nothing of the volume. Correct the geometry.")
    return view if one.level is None else replace(view, image=match_training(view.image, view.seen, *one.level))


def attempt(
    model: Model, inputs: Sequence[Input], placed: Geometry, trained: Geometry
) -> tuple[Prediction, tuple[Fit, ...]]:
    """Reconstruct, and compare the result's projections with what the model was given; images without a scale, and X-rays
    whose attenuation of water is not known, are compared up to a factor and an offset."""
    views = [brought(one, placed, trained, number) for number, one in enumerate(inputs)]
    prediction = model.predict(make_xray(views, placed), placed.affine)
    water = placed.attrs.get("mu_water_per_mm")
    volume = to_attenuation(prediction.ct_hu, water or WATER_PER_MM)
    fits = []
    for view, one in zip(views, inputs, strict=True):
        with torch.inference_mode():
            again = project_volume(volume, placed.affine, view.projection, view.image.shape).double().numpy()
        fits.append(compare(again, view.image, view.seen, fitted=water is None or one.level is not None))
    return prediction, tuple(fits)


def make_xray(views: Sequence[Fitted], geometry: Geometry) -> Xray:
    """What models read, as a shard would give it."""
    projection = np.stack([view.projection for view in views])
    rays = [rays_of(matrix) for matrix in projection]
    return Xray(
        views=list(geometry.views),
        image=np.stack([view.image for view in views]).astype(np.float32),
        projection=projection,
        source_mm=np.stack([source for source, _ in rays]),
        detector_mm=np.stack([detector for _, detector in rays]),
        attrs=dict(geometry.attrs),
    )


def report(fits: Sequence[Fit], views: Sequence[str]) -> list[str]:
    """A table of the comparison."""
    rows = [("view", "relative RMS", "correlation", "shift u, v (px)")]
    for name, one in zip(views, fits, strict=True):
        shift = ", ".join(f"{round(value, 1) + 0.0:.1f}" for value in one.shift_px)
        rows.append((name, f"{one.relative_rms:.3f}", f"{one.correlation:.3f}", shift))
    return ["the result projected again, against the images:", *aligned(rows, 1)]


def warnings_of(fits: Sequence[Fit], views: Sequence[str]) -> list[str]:
    """What is out of the range that right images of patients like the training's stay in."""
    doubts = []
    for name, one in zip(views, fits, strict=True):
        wrong = [
            (one.relative_rms > LARGEST_RMS, f"relative RMS {one.relative_rms:.2f} (expected up to {LARGEST_RMS:g})"),
            (one.correlation < LEAST_CORRELATION, f"correlation {one.correlation:.2f} (from {LEAST_CORRELATION:g} on)"),
            (np.hypot(*one.shift_px) > LARGEST_SHIFT_PX, f"shift above {LARGEST_SHIFT_PX:g} px"),
        ]
        found = ", ".join(text for is_wrong, text in wrong if is_wrong)
        if found:
            doubts.append(
                f"the result does not show what the image of view {name} shows: {found}. Check orientation, geometry and "
                "intensity; else the patient is unlike those the model has seen."
            )
    return doubts


def better_readings(
    model: Model, inputs: Sequence[Input], placed: Geometry, trained: Geometry, fits: Sequence[Fit]
) -> list[str]:
    """The other reading of the images that fits best, if it fits clearly better than the given one."""
    given = mean_rms(fits)
    tried = {}
    for words, other_inputs, geometry in readings(inputs, placed):
        try:
            tried[words] = mean_rms(attempt(model, other_inputs, geometry, trained)[1])
        except UserError:  # so placed, an image shows nothing
            continue
    best = min(tried, key=lambda words: tried[words], default=None)
    if best is None or tried[best] >= BETTER * given:
        return []
    return [
        f"the images fit better with {best}: mean relative RMS {tried[best]:.3f} instead of {given:.3f}. "
        "Check how they lie and where they were taken."
    ]


def mean_rms(fits: Sequence[Fit]) -> float:
    return float(np.mean([one.relative_rms for one in fits]))


def readings(inputs: Sequence[Input], placed: Geometry) -> Iterator[tuple[str, list[Input], Geometry]]:
    """Common mistakes undone one at a time: words, images, geometry."""
    inputs = list(inputs)
    for number, name in enumerate(placed.views):
        mirrored = replace(inputs[number], image=np.fliplr(inputs[number].image))
        yield f"{name} mirrored left to right", [*inputs[:number], mirrored, *inputs[number + 1 :]], placed
    yield "all upside down", [replace(one, image=np.flipud(one.image)) for one in inputs], placed
    if len(inputs) == 2 and placed.sizes[0] == placed.sizes[1]:
        swapped = [replace(one, image=other.image) for one, other in zip(inputs, inputs[::-1], strict=True)]
        yield f"{' and '.join(placed.views)} exchanged", swapped, placed
    for words, scale in SCALES.items():
        yield f"pixels {words}", inputs, replace(placed, projection=rescaled(placed, scale))


def rescaled(geometry: Geometry, scale: float) -> Float[ndarray, "view 3 4"]:
    """The matrices of a detector whose pixels are `scale` times as large, the volume's centre appearing where it did."""
    centre = grid_centre(geometry.shape, geometry.affine)
    matrices = []
    for matrix in geometry.projection:
        u, v = pixel_at(matrix, centre)[0]
        keep = 1 - 1 / scale
        matrices.append(np.array([[1 / scale, 0, keep * u], [0, 1 / scale, keep * v], [0, 0, 1]]) @ matrix)
    return np.stack(matrices)
