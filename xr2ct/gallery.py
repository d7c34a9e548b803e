"""The pictures of the cases of a report, made one case at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from xr2ct import pictures
from xr2ct.evaluate import read_on_grid
from xr2ct.nifti import VolumeError
from xr2ct.planes import PLANES, Edges, Plane, cut, cut_aspect, cut_edges, interesting_voxel, to_ras, xray_edges
from xr2ct.reconstructions import Run
from xr2ct.shards import Case, Shard


@dataclass(frozen=True)
class Picture:
    """One picture of the page; `labels` lies over `image`, `aspect` is width over height in mm."""

    caption: str
    image: str
    labels: str
    edges: Edges
    aspect: float


@dataclass(frozen=True)
class Row:
    """The true CT or one run: three slices and, for a run, three error maps; `problem` if it cannot be shown."""

    name: str
    about: str
    slices: list[Picture]
    errors: list[Picture]
    problem: str = ""


@dataclass(frozen=True)
class CasePictures:
    """Everything shown of one case."""

    id: str
    dataset: str
    split: str
    patient: str
    derived_from: str
    xrays: list[Picture]
    rows: list[Row]


@dataclass(frozen=True)
class Hanging:
    """A case turned so that its axes run along the world's, and the voxel through which it is cut."""

    case: Case
    ct_hu: Shaped[ndarray, "x y z"]
    label: Shaped[ndarray, "x y z"]
    affine: Shaped[ndarray, "4 4"]
    at: Shaped[ndarray, "3"]


def hang(case: Case) -> Hanging:
    ct_hu, affine = to_ras(case.ct_hu, case.affine)
    label, _ = to_ras(case.label, case.affine)
    return Hanging(case, ct_hu, label, affine, interesting_voxel(ct_hu, label))


def case_pictures(shard: Shard, i: int, runs: Sequence[Run]) -> CasePictures:
    """Both X-rays of every simulator, the true CT and every run's reconstruction with its error."""
    hanging = hang(shard.case(i))
    case = hanging.case
    true = Row("true CT", "", list(_slices(hanging, hanging.ct_hu, hanging.label)), [])
    return CasePictures(
        id=case.id,
        dataset=case.dataset,
        split=case.split,
        patient=case.subject_key,
        derived_from=case.derived_from,
        xrays=list(_xrays(shard, i, case)),
        rows=[true, *(_run_row(hanging, run, shard.structures) for run in runs)],
    )


def _xrays(shard: Shard, i: int, case: Case) -> Iterator[Picture]:
    centre = (case.affine @ [*(np.array(case.ct_hu.shape[::-1]) - 1) / 2, 1])[:3]
    for simulator in shard.simulators:
        xray = shard.xray(i, simulator)
        for view, image, projection, detector in zip(
            xray.views, xray.image, xray.projection, xray.detector_mm, strict=True
        ):
            step_v, step_u = np.linalg.norm(detector[1:], axis=1)
            yield Picture(
                caption=f"{simulator} {view}",
                image=pictures.data_uri(pictures.radiograph(image)),
                labels="",
                edges=xray_edges(projection, centre),
                aspect=float(image.shape[1] * step_u / (image.shape[0] * step_v)),
            )


def load_run(hanging: Hanging, run: Run, structures: Sequence[str]) -> tuple[ndarray, ndarray | None]:
    """HU and label (in the shard's ids) of a reconstruction, turned as the true CT; VolumeError if it is unusable."""
    reconstruction = run.cases.get(hanging.case.id)
    if reconstruction is None:
        raise VolumeError("case was not reconstructed")
    ct_hu, _ = to_ras(read_on_grid(reconstruction.ct, hanging.case), hanging.case.affine)
    if reconstruction.label is None:
        return ct_hu, None
    predicted, _ = to_ras(read_on_grid(reconstruction.label, hanging.case), hanging.case.affine)
    to_shard = np.zeros(256, np.uint8)
    for value, name in enumerate(run.structures):
        to_shard[value] = structures.index(name) if name in structures else 0
    return ct_hu, to_shard[predicted]


def _run_row(hanging: Hanging, run: Run, structures: Sequence[str]) -> Row:
    about = f"{run.model}, from {run.simulator}"
    try:
        ct_hu, label = load_run(hanging, run, structures)
    except VolumeError as error:
        return Row(run.name, about, [], [], str(error))
    low, high = run.window_hu
    difference = np.clip(ct_hu.astype(np.float32), low, high) - np.clip(hanging.ct_hu.astype(np.float32), low, high)
    errors = [
        _picture(f"{plane.name} error", pictures.error_map(cut(difference, plane, hanging.at)), None, hanging, plane)
        for plane in PLANES
    ]
    return Row(run.name, about, list(_slices(hanging, ct_hu, label)), errors)


def _slices(hanging: Hanging, ct_hu: ndarray, label: ndarray | None) -> Iterator[Picture]:
    for plane in PLANES:
        image = pictures.grey(cut(ct_hu, plane, hanging.at), *pictures.DISPLAY_HU)
        yield _picture(plane.name, image, None if label is None else cut(label, plane, hanging.at), hanging, plane)


def _picture(caption: str, image: object, label: ndarray | None, hanging: Hanging, plane: Plane) -> Picture:
    shown = label is not None and label.any()
    return Picture(
        caption=caption,
        image=pictures.data_uri(image),
        labels=pictures.data_uri(pictures.labels(np.ascontiguousarray(label))) if shown else "",
        edges=cut_edges(hanging.affine, plane),
        aspect=cut_aspect(hanging.affine, plane, cut(hanging.ct_hu, plane, hanging.at).shape),
    )
