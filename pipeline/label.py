"""Stage label: the labels of a CT, its own or TotalSegmentator's, as structures of the experiment on its cube."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, UInt8
from numpy import ndarray

from pipeline.anatomy import check_anatomy
from pipeline.errors import CaseError, UserError
from pipeline.nifti import load_nifti, save_nifti
from pipeline.read import read_label
from pipeline.read.field_of_view import beyond_rim
from pipeline.records import read_record, relative, run_case
from pipeline.regions import hide
from pipeline.resample import resample_label, to_closest_ras
from pipeline.structures import annotated_structures, load_scheme, structure_lookup

NOT_ANNOTATED, ABSENT, CUT, COMPLETE = range(4)
_LATTICE_TOLERANCE_MM = 0.01
_SLAB_VOXELS = 1 << 22

Source = tuple[Integer[ndarray, "i j k"], Float[ndarray, "4 4"], dict[int, str]]
"""Ids on the voxels of a CT turned to RAS, their affine, and the names of the ids."""


def label(record_path: Path, folder: Path, *, structures: list[str]) -> dict:
    """Label map -> `folder`/label.nii.gz (uint8, 0 background, 1..K in the order of `structures`) and a status for each."""
    known = _check(record_path)
    return _label(record_path, known, folder, lambda: _load(record_path, known), structures)


def label_vertebrae(record_paths: list[Path], folder: Path, *, structures: list[str]) -> list[dict]:
    """Each vertebra of one CT in `folder`-L1, ...; the CT's label map is read once."""
    known = [_check(path) for path in record_paths]
    scans = sorted({one.get("scan", "a whole CT") for one in known})
    if len(scans) > 1 or "a whole CT" in scans:
        raise UserError(f"the records are of {', '.join(scans)}; expected vertebrae of one CT. Label each alone.")
    (scan,) = scans
    usable = [(path, one) for path, one in zip(record_paths, known, strict=True) if one["status"] == "ok"]
    load = cache(lambda: _load(*usable[0]))
    return [
        _label(path, one, folder.with_name(folder.name + one["case"].removeprefix(scan)), load, structures)
        for path, one in zip(record_paths, known, strict=True)
    ]


def _check(record_path: Path) -> dict:
    """The record that ingest left; UserError for one of another stage."""
    known = read_record(record_path)
    if known["status"] == "ok":
        read_record(record_path, "ingest")
    return known


def _load(record_path: Path, known: dict) -> Source | None:
    file = (record_path.parent / known["source_label"]).resolve() if known["source_label"] else None
    return source_labels(known, file, tuple(known["source_shape"]), np.array(known["source_affine"]))


def _label(
    record_path: Path, known: dict, folder: Path, load: Callable[[], Source | None], structures: list[str]
) -> dict:
    def work(folder: Path) -> dict:
        ct_path = (record_path.parent / known["ct"]).resolve()
        target = np.array(known["affine"])
        cube = load_nifti(ct_path).shape[0]
        source = load()
        if source is None:
            mapped = np.zeros((cube,) * 3, np.uint8)
            status = np.full(len(structures) + 1, NOT_ANNOTATED, np.uint8)
        else:
            ids, affine, names = source
            structure_ids = _to_structures(ids, names, structures)
            hidden = hide(structure_ids, ids, known["region"]) if known.get("region") else set()
            mapped = resample_label(structure_ids, affine, target, cube)
            lost = lost_from_source(structure_ids, affine, target, mapped) | hidden
            if "FOV_CIRCLE" in known["flags"]:
                lost |= values_in(structure_ids[beyond_rim(*structure_ids.shape[:2])])
            status = label_status(mapped, lost, annotated_structures(names, structures))
        save_nifti(folder / "label.nii.gz", mapped, target)
        return {
            "ct": relative(ct_path, folder),
            "label": "label.nii.gz",
            "source_ct": None,
            "source_label": None,
            "structures": ["background", *structures],
            "label_status": status.tolist(),
        }

    return run_case("label", known, folder, work)


def source_labels(
    known: dict, label: Path | None, ct_shape: tuple[int, ...], ct_affine: Float[ndarray, "4 4"]
) -> Source | None:
    """The labels of a CT, or None where a case has none.

    `known` is its record: the names of the ids, and which of them to correct.
    """
    if not label:
        return None
    volume = read_label(label, assume_orientation=known.get("assume_orientation", ""))
    names = {int(value): name for value, name in known["label_names"].items()} or load_scheme(known["label_scheme"])
    remap = {int(old): int(new) for old, new in known["label_remap"].items()}
    names = {value: names[remap.get(value, value)] for value in {*names, *remap} if remap.get(value, value) in names}
    empty, ras_affine = to_closest_ras(np.broadcast_to(np.uint8(0), ct_shape), ct_affine)
    placed = place_in_source(*to_closest_ras(volume.data, volume.affine), ras_affine, empty.shape)
    check_ids(placed, names, may_be_empty=bool(known.get("labeller")))
    check_anatomy(placed, ras_affine, names)
    return placed, ras_affine, names


def place_in_source(
    ids: Integer[ndarray, "i j k"],
    affine: Float[ndarray, "4 4"],
    ct_affine: Float[ndarray, "4 4"],
    ct_shape: tuple[int, ...],
) -> Integer[ndarray, "x y z"]:
    """Labels on the lattice of their CT, both turned to RAS; a cropped box is put where it belongs.

    Every voxel outside a cropped box is background. Labels on another lattice are refused: E_LABEL_AFFINE, E_LABEL_SHAPE.
    """
    start = np.rint((np.linalg.inv(ct_affine) @ affine)[:3, 3]).astype(int)
    corners = np.array(np.meshgrid(*([0, size - 1] for size in ids.shape), indexing="ij")).reshape(3, -1)
    at_label = affine[:3, :3] @ corners + affine[:3, 3:]
    at_ct = ct_affine[:3, :3] @ (corners + start[:, None]) + ct_affine[:3, 3:]
    away_mm = float(np.abs(at_label - at_ct).max())
    if away_mm > _LATTICE_TOLERANCE_MM or (ids.shape == ct_shape and start.any()):
        raise CaseError(
            "E_LABEL_AFFINE",
            "the label map does not lie on the voxels of its CT; expected the same affine, or a box cropped from it",
        )
    if (start < 0).any() or (start + ids.shape > ct_shape).any():
        raise CaseError(
            "E_LABEL_SHAPE", f"the label map has shape {ids.shape} and reaches beyond its CT of shape {ct_shape}"
        )
    if ids.shape == ct_shape:
        return ids
    placed = np.zeros(ct_shape, ids.dtype)
    placed[tuple(slice(low, low + size) for low, size in zip(start, ids.shape, strict=True))] = ids
    return placed


def check_ids(ids: Integer[ndarray, "..."], names: dict[int, str], *, may_be_empty: bool = False) -> None:
    """An id without a name, or nothing but background, is an error of the case.

    `may_be_empty`: a labeller that was asked for a few structures only may have found none of them.
    """
    present = values_in(ids) - {0}
    unnamed = sorted(present - set(names))
    if unnamed:
        raise CaseError("E_LABEL_VALUES", f"the label map holds id {unnamed[0]}, which its label scheme does not name")
    if not present and not may_be_empty:
        raise CaseError("E_LABEL_EMPTY", "the label map holds nothing but background")


def _to_structures(
    ids: Integer[ndarray, "i j k"], names: dict[int, str], structures: list[str]
) -> UInt8[ndarray, "i j k"]:
    """Source ids -> 1..K, slab by slab."""
    lookup = structure_lookup(names, structures)
    mapped = np.empty_like(ids, np.uint8)
    for slab in _slabs(ids.shape):
        mapped[slab] = lookup[ids[slab]]
    return mapped


def label_status(
    on_cube: UInt8[ndarray, "z y x"], lost: set[int], annotated: list[bool]
) -> UInt8[ndarray, "structure"]:
    """Per structure (background first): not annotated, absent, cut by the field of view, complete.

    Cut are the structures in `lost` (those the source's edge cuts, or that reach beyond the cube) and those that touch an
    edge of the cube.
    """
    status = np.full(len(annotated) + 1, NOT_ANNOTATED, np.uint8)
    status[0] = COMPLETE
    inside, cut = set(np.unique(on_cube).tolist()), touching(on_cube) | lost
    for value, known in enumerate(annotated, start=1):
        if known:
            status[value] = CUT if value in cut else COMPLETE if value in inside else ABSENT
    return status


def lost_from_source(
    ids: UInt8[ndarray, "i j k"], affine: Float[ndarray, "4 4"], target: Float[ndarray, "4 4"], on_cube: ndarray
) -> set[int]:
    """Structures of the source that its own edge cuts, that have a voxel outside the cube, or that the cube lost."""
    to_cube = np.linalg.inv(target) @ affine
    beyond: set[int] = set()
    for slab in _slabs(ids.shape):
        outside = np.zeros(ids[slab].shape, bool)
        indices = np.ogrid[: ids.shape[0], : ids.shape[1], slab[1]]
        for axis, size in enumerate(reversed(on_cube.shape)):
            terms = [to_cube[axis, other] * index for other, index in enumerate(indices) if to_cube[axis, other]]
            at = sum(terms) + to_cube[axis, 3]
            outside |= (at < -0.5) | (at > size - 0.5)
        beyond |= values_in(ids[slab][outside])
    gone = values_in(ids) - values_in(on_cube)
    return (touching(ids) | beyond | gone) - {0}


def touching(labels: ndarray) -> set[int]:
    """Values on the outermost layer of voxels."""
    ends = [slice(None, None, max(1, size - 1)) for size in labels.shape]
    return set().union(*(values_in(labels[(slice(None),) * axis + (end,)]) for axis, end in enumerate(ends)))


def values_in(ids: Integer[ndarray, "..."]) -> set[int]:
    """The different values of a label map, none of them negative, without sorting its voxels."""
    seen = np.zeros(np.iinfo(ids.dtype).max + 1, bool)
    for slab in _slabs(ids.shape):
        seen[ids[slab]] = True
    return set(np.flatnonzero(seen).tolist())


def _slabs(shape: tuple[int, ...]) -> list[tuple]:
    """Parts of an array along its last axis: what is computed in float64 or as indices of one fits in memory."""
    step = max(1, _SLAB_VOXELS // max(1, math.prod(shape[:-1])))
    return [(..., slice(start, min(start + step, shape[-1]))) for start in range(0, shape[-1], step)]
