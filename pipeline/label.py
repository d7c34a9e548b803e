"""Stage label: the labels that came with a CT, or TotalSegmentator's, as structures of the experiment on its cube."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, UInt8
from numpy import ndarray

from pipeline.errors import CaseError
from pipeline.nifti import load_nifti, save_nifti
from pipeline.read import read_label
from pipeline.records import read_record, relative, run_case
from pipeline.resample import resample_label, to_closest_ras
from pipeline.structures import annotated_structures, load_scheme, structure_lookup

NOT_ANNOTATED, ABSENT, CUT, COMPLETE = range(4)
_LATTICE_TOLERANCE_MM = 0.01


def label(
    record_path: Path, folder: Path, *, structures: list[str], missing: str = "none", device: str = "cpu"
) -> dict:
    """Label map -> `folder`/label.nii.gz (uint8, 0 background, 1..K in the order of `structures`) and a status for each.

    `missing` says what to do for a case without labels: none, totalsegmentator or totalsegmentator-fast.
    """
    known = read_record(record_path)
    if known["status"] == "ok":
        read_record(record_path, "ingest")

    def work(folder: Path) -> dict:
        ct_path = (record_path.parent / known["ct"]).resolve()
        target = np.array(known["affine"])
        cube = load_nifti(ct_path).shape[0]
        source = _source_label(record_path, known, missing, device)
        if source is None:
            mapped = np.zeros((cube,) * 3, np.uint8)
            status = np.full(len(structures) + 1, NOT_ANNOTATED, np.uint8)
        else:
            ids, affine, names, remap = source
            structure_ids = _to_structures(ids, names, structures, remap)
            mapped = resample_label(structure_ids, affine, target, cube)
            annotated = annotated_structures(names, structures)
            status = label_status(mapped, lost_from_source(structure_ids, affine, target, mapped), annotated)
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


def _source_label(record_path: Path, known: dict, missing: str, device: str):
    """(ids on the CT's lattice turned to RAS, its affine, id -> name, remap), or None where a case has no labels."""
    if known["source_label"]:
        volume = read_label((record_path.parent / known["source_label"]).resolve())
        ids, affine = volume.data, volume.affine
        names = {int(value): name for value, name in known["label_names"].items()} or load_scheme(known["label_scheme"])
        remap = {int(old): int(new) for old, new in known["label_remap"].items()}
    elif missing != "none":
        from pipeline.totalsegmentator import segment

        source_ct = (record_path.parent / known["source_ct"]).resolve()
        ids, affine = segment(source_ct, fast=missing.endswith("fast"), device=device)
        names, remap = load_scheme("totalsegmentator_v2"), {}
    else:
        return None
    frame = np.broadcast_to(np.uint8(0), known["source_shape"])
    empty, ct_affine = to_closest_ras(frame, np.array(known["source_affine"]))
    placed = place_in_source(*to_closest_ras(ids, affine), ct_affine, empty.shape)
    return placed, ct_affine, names, remap


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
    placed = np.zeros(ct_shape, ids.dtype)
    placed[tuple(slice(low, low + size) for low, size in zip(start, ids.shape, strict=True))] = ids
    return placed


def _to_structures(
    ids: Integer[ndarray, "i j k"], names: dict[int, str], structures: list[str], remap: dict[int, int]
) -> UInt8[ndarray, "i j k"]:
    """Source ids -> 1..K; an id without a name, or nothing but background, is an error of the case."""
    present = np.unique(ids)
    unnamed = [int(value) for value in present if value and remap.get(int(value), int(value)) not in names]
    if unnamed:
        raise CaseError("E_LABEL_VALUES", f"the label map holds id {unnamed[0]}, which its label scheme does not name")
    if not present.any():
        raise CaseError("E_LABEL_EMPTY", "the label map holds nothing but background")
    return structure_lookup(names, structures, remap)[ids]


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
    outside = np.zeros(ids.shape, bool)
    indices = np.ogrid[tuple(map(slice, ids.shape))]
    for axis, size in enumerate(reversed(on_cube.shape)):
        at = sum(to_cube[axis, other] * index for other, index in enumerate(indices)) + to_cube[axis, 3]
        outside |= (at < -0.5) | (at > size - 0.5)
    present = set(np.unique(ids).tolist())
    gone = present - set(np.unique(on_cube).tolist())
    return (touching(ids) | set(np.unique(ids[outside]).tolist()) | gone) - {0}


def touching(labels: ndarray) -> set[int]:
    """Values on the outermost layer of voxels."""
    faces = [np.take(labels, [0, -1], axis=axis).ravel() for axis in range(3)]
    return set(np.unique(np.concatenate(faces)).tolist())
