"""Reconstruct from X-ray image files, one per view, outside any workflow; see resources/two_images.md."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from xr2ct.checkpoint import load_checkpoint
from xr2ct.device import choose_device
from xr2ct.errors import UserError
from xr2ct.files import publish
from xr2ct.geometry_file import read_geometry, shown_at
from xr2ct.image_files import Picture, read_picture
from xr2ct.intensities import (
    INTENSITIES,
    as_brightness,
    as_line_integral,
    choose_intensity,
    from_transmission,
)
from xr2ct.models.model import Model, Prediction
from xr2ct.nifti import save_nifti
from xr2ct.planes import xray_edges
from xr2ct.plausibility import Input, attempt, better_readings, brought, report, warnings_of
from xr2ct.reconstruct import known_names
from xr2ct.settings import unknown
from xr2ct.train import build_trained
from xr2ct.views import Geometry, grid_centre, trained_geometry

OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "I": "S", "S": "I"}
FRONTAL, LATERAL = ("PA", "AP"), ("LAT", "RLAT", "LL", "RL", "LLO", "RLO", "LATERAL")
SUFFIX = ".nii.gz"
LEAST_SEEN = 0.1  # of the trained detector, that an image must cover


def reconstruct_images(
    *,
    checkpoint: Path,
    images: Mapping[str, Path],
    out: Path,
    geometry: Path | None = None,
    intensity: str = "auto",
    i0: float | None = None,
    inverted: bool = False,
    backend: str | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Write `out` (int16 HU), the labels and their names beside it, and print how the result projects onto the images.

    `images` is a file by view name; without `geometry` they show the whole detector the model was trained with. `backend` of
    the hash grid is as `build_trained` takes it.
    """
    label_path, names_path = beside(out)
    if intensity not in INTENSITIES:
        raise unknown("intensity", intensity, INTENSITIES)
    where = choose_device(device, threads)
    content = load_checkpoint(checkpoint)
    model, task = build_trained(content, backend, where)
    trained = trained_geometry(content, task, checkpoint)
    require_views(images, trained.views)
    pictures = {name: read_picture(images[name]) for name in trained.views}
    sizes = {name: (picture.values.shape[0], picture.values.shape[1]) for name, picture in pictures.items()}
    placed = read_geometry(geometry, sizes, trained) if geometry else shown_at(trained, sizes)

    inputs = []
    for number, name in enumerate(trained.views):
        kind = choose_intensity(pictures[name]) if intensity == "auto" else intensity
        picture, notes = turned(pictures[name], placed, number)
        image, said = make_integrals(picture, kind, name, i0, inverted)
        level = training_level(model, number) if kind == "display" else None
        inputs.append(Input(image, level))
        print(f"{name}: {images[name]}, {picture.kind} {' x '.join(map(str, sizes[name]))}, {said}")
        for note in [expected_edges(placed, number), *notes, *resampling(inputs[-1], placed, trained, number)]:
            print(f"    {note}")

    model.to(where)
    prediction, fits = attempt(model, inputs, placed, trained)
    save(out, label_path, names_path, prediction, placed.affine, known_names(model, task))
    print(*report(fits, placed.views), sep="\n")
    for doubt in warnings_of(fits, placed.views) + better_readings(model, inputs, placed, trained, fits):
        print(f"WARNING: {doubt}", file=sys.stderr)


def beside(out: Path) -> tuple[Path, Path]:
    """Where labels and their names go: ct.nii.gz -> label.nii.gz and labels.json, a.nii.gz -> a-label.nii.gz, ..."""
    if not out.name.endswith(SUFFIX) or out.name == SUFFIX:
        raise UserError(
            f"--out {out}: expected a file that ends in {SUFFIX} for one reconstruction. Give e.g. ct.nii.gz."
        )
    stem = out.name.removesuffix(SUFFIX)
    prefix = "" if stem == "ct" else f"{stem}-"
    return out.with_name(f"{prefix}label{SUFFIX}"), out.with_name(f"{prefix}labels.json")


def require_views(images: Mapping[str, Path], expected: tuple[str, ...]) -> None:
    """UserError unless there is one image for each view of the model and no other."""
    wanted = ", ".join(expected)
    for name in images:
        if name not in expected:
            raise UserError(f"an image is given for view {name}; the model was trained on {wanted}. Give these views.")
    missing = [name for name in expected if name not in images]
    if missing:
        raise UserError(
            f"no image for view {', '.join(missing)}; the model was trained on {wanted} and needs all of them. "
            "Add --pa, --lat or --image NAME=FILE."
        )


def turned(picture: Picture, geometry: Geometry, number: int) -> tuple[Picture, list[str]]:
    """The picture flipped to where the geometry expects its edges, if a DICOM says how it lies, and what was done."""
    name = geometry.views[number]
    if (name in FRONTAL and picture.position in LATERAL) or (name in LATERAL and picture.position in FRONTAL):
        raise UserError(f"the image of view {name} is a DICOM of ViewPosition {picture.position}. Swap the images?")
    if picture.runs_to is None:
        return picture, []
    edges = xray_edges(geometry.projection[number], grid_centre(geometry.shape, geometry.affine))
    values, notes = picture.values, []
    for axis, (found, letters) in enumerate(zip(picture.runs_to, (edges.right, edges.bottom), strict=True)):
        if found == OPPOSITE[letters[0]]:
            values = np.flip(values, axis=1 - axis)
            notes.append(
                f"flipped along its {('rows', 'columns')[axis]}: PatientOrientation says that they run to {found}"
            )
        elif found != letters[0]:
            raise UserError(
                f"the image of view {name} runs to {' and '.join(picture.runs_to)} (PatientOrientation); the geometry "
                f"expects {edges.right[0]} and {edges.bottom[0]}. Swap or turn the images."
            )
    return replace(picture, values=values), notes


def expected_edges(geometry: Geometry, number: int) -> str:
    """Which side of the patient each edge of the image must show; nothing here can see whether it does."""
    edges = xray_edges(geometry.projection[number], grid_centre(geometry.shape, geometry.affine))
    return f"taken as: patient's {edges.left} at the left edge, {edges.right} at the right, {edges.top} at the top"


def make_integrals(
    picture: Picture, kind: str, name: str, i0: float | None, inverted: bool
) -> tuple[Float[ndarray, "v u"], str]:
    """Line integrals, or brightness still to be matched, and what was done in words."""
    if kind == "line-integral":
        return as_line_integral(picture.values, name)
    if kind == "transmission":
        return from_transmission(picture.values, i0, name)
    bone = "dark" if inverted else "bright"
    return as_brightness(picture, inverted), f"display image with bone {bone}, set to the training's mean and SD"


def resampling(one: Input, placed: Geometry, trained: Geometry, number: int) -> list[str]:
    """What a user should know of how an image is brought to the trained pixels."""
    view = brought(one, placed, trained, number)
    notes = []
    if view.zoom != (1.0, 1.0):
        notes.append(f"resampled to the trained pixels: {view.zoom[0]:.3g} x {view.zoom[1]:.3g} of its own per pixel")
    if view.seen.mean() < LEAST_SEEN:
        raise UserError(
            f"the image of view {placed.views[number]} covers {view.seen.mean():.0%} of what the trained detector shows; "
            f"expected {LEAST_SEEN:.0%} or more. Correct pixel_mm, distances and offset in the geometry."
        )
    if not view.seen.all():
        notes.append(f"{1 - view.seen.mean():.0%} of the trained detector lies outside the image: taken as empty")
    return notes


def training_level(model: Model, number: int) -> tuple[float, float]:
    """Mean and SD of the training's line integrals of one view."""
    mean, scale = getattr(model, "image_mean", None), getattr(model, "image_scale", None)
    if mean is None or scale is None:
        raise UserError(
            f"display images carry no line integrals, and model {type(model).__name__.lower()} keeps no mean and SD of its "
            "training's to match them with. Give line integrals or transmission, or use a trained network."
        )
    return float(mean[number]), float(scale[number])


def save(
    out: Path,
    label_path: Path,
    names_path: Path,
    prediction: Prediction,
    affine: Float[ndarray, "4 4"],
    structures: Sequence[str],
) -> None:
    """The CT is written last: where it is, the rest is. `structures` by label value, "" for one that has no name to write."""
    if prediction.label is not None:
        save_nifti(label_path, prediction.label, affine)
        with publish(names_path) as private:
            names = {str(value): name for value, name in enumerate(structures) if name}
            private.write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")
    else:
        label_path.unlink(missing_ok=True)
        names_path.unlink(missing_ok=True)
    save_nifti(out, prediction.ct_hu, affine)
    shape = " x ".join(map(str, prediction.ct_hu.shape))
    labels = (
        "no labels: this model predicts none" if prediction.label is None else f"{label_path.name}, {names_path.name}"
    )
    centre = ", ".join(f"{value:g}" for value in np.round(grid_centre(prediction.ct_hu.shape, affine), 3))
    print(f"{out}: {shape} voxels (z, y, x) around {centre} mm; {labels}")
