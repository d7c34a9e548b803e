"""Which part of a CT becomes a case: the whole cube, the height of some structures, the spine, or one vertebra alone.

A region only chooses whole voxels of the source and where the target cube lies in the world. No array is moved, so that
a millimetre of the CT stays that millimetre.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer, Real, UInt8
from numpy import ndarray

from pipeline.errors import CaseError, UserError
from pipeline.resample import PADDING_HU, cube_affine
from pipeline.structures import annotated_structures, structure_lookup

VERTEBRA = re.compile(r"vertebrae_[CTL]\d+")
ABSENT_CODE, CUT_CODE = "E_REGION_ABSENT", "E_REGION_CUT"
"""Cases of these codes were not chosen, which is no fault of theirs."""
_MARGIN_MM = 10.0

Box = tuple[slice, slice, slice]
Affine = Float[ndarray, "4 4"]


@dataclass(frozen=True)
class Labelled:
    """Label ids on the voxels of a CT, both turned to RAS; `names` are those of the file's own ids."""

    ids: Integer[ndarray, "i j k"]
    affine: Affine
    names: Mapping[int, str]


@dataclass(frozen=True)
class Region:
    """`box`: the source voxels that may be seen, `keep`: the ids that may (None: all), `target`: affine of the cube."""

    box: Box
    keep: frozenset[int] | None
    target: Affine


def structures_region(source: Labelled, wanted: list[str], *, cube: int, spacing_mm: float) -> Region:
    """The height of the body, at its full width, from the lowest to the highest voxel of the structures, and 10 mm more.

    E_REGION_ABSENT unless every structure is there, E_REGION_CUT if the lower or upper end of the CT cuts one.
    """
    missing = [
        name for name, known in zip(wanted, annotated_structures(source.names, wanted), strict=True) if not known
    ]
    if missing:
        raise CaseError("E_REGION", f"the labels do not know {missing[0]}, along which the region is cut")
    lookup = structure_lookup(source.names, wanted)
    planes = np.zeros((len(wanted) + 1, source.ids.shape[2]), bool)
    for k in range(source.ids.shape[2]):
        planes[lookup[source.ids[:, :, k]].ravel(), k] = True
    for name, present in zip(wanted, planes[1:], strict=True):
        if not present.any():
            raise CaseError(ABSENT_CODE, f"the CT does not hold {name}, along which the region is cut")
        if present[0] or present[-1]:
            raise CaseError(CUT_CODE, f"the CT ends within {name}, along which the region is cut")
    low, high = np.full(3, 0), np.array(source.ids.shape)
    (inside,) = np.nonzero(planes[1:].any(axis=0))
    low[2], high[2] = inside[0], inside[-1] + 1
    return _region(source, low, high, (0.0, 0.0, _MARGIN_MM), None, cube, spacing_mm)


def spine_region(source: Labelled, wanted: list[str], *, cube: int, spacing_mm: float) -> Region:
    """The bounding box of all vertebrae (C1 to L6) and 10 mm on each side, tissue around them included (X2CT-spine)."""
    low, high = _bounds(
        source, {value for value, name in source.names.items() if VERTEBRA.fullmatch(name)}, "a vertebra"
    )
    return _region(source, low, high, (_MARGIN_MM,) * 3, None, cube, spacing_mm)


def vertebra_region(source: Labelled, wanted: list[str], *, cube: int, spacing_mm: float) -> Region:
    """One vertebra, alone in air (EAR: 128 voxels of 1 mm).

    E_REGION_ABSENT where the CT does not hold it, E_REGION_CUT where it ends within it, E_REGION if the cube is too small.
    """
    if len(wanted) != 1 or not VERTEBRA.fullmatch(wanted[0]):
        raise UserError(
            f"region vertebra needs one vertebra, for example vertebrae_L3; got {', '.join(wanted) or 'none'}."
        )
    keep = {value for value, name in source.names.items() if name == wanted[0]}
    low, high = _bounds(source, keep, wanted[0])
    if (low == 0).any() or (high == source.ids.shape).any():
        raise CaseError(CUT_CODE, f"the edge of the CT cuts {wanted[0]}")
    return _region(source, low, high, (0.0,) * 3, frozenset(keep), cube, spacing_mm)


REGIONS: dict[str, Callable[..., Region]] = {
    "structures": structures_region,
    "spine": spine_region,
    "vertebra": vertebra_region,
}
"""Beside `cube`, the whole CT as far as the cube reaches, which needs no labels."""


def find_region(name: str, source: Labelled, wanted: list[str], *, cube: int, spacing_mm: float) -> Region:
    """The region of one CT by the name of its option."""
    if name not in REGIONS:
        raise UserError(f"region {name!r} is not known; expected one of: {', '.join(['cube', *REGIONS])}.")
    return REGIONS[name](source, wanted, cube=cube, spacing_mm=spacing_mm)


def cut_out(data_hu: Real[ndarray, "i j k"], source: Labelled, region: Region) -> tuple[Real[ndarray, "x y z"], Affine]:
    """The CT's voxels in the box, -1024 where other ids than `keep` are, and their affine."""
    part = data_hu[region.box]
    if region.keep is not None:
        part = np.where(np.isin(source.ids[region.box], sorted(region.keep)), part, part.dtype.type(PADDING_HU))
    return part, cropped_affine(source.affine, region.box)


def cropped_affine(affine: Affine, box: Box) -> Affine:
    """The affine of `data[box]`: voxel 0 of the box lies where its voxel lay before."""
    cropped = affine.copy()
    cropped[:3, 3] = (affine @ np.append([float(side.start) for side in box], 1.0))[:3]
    return cropped


def to_record(name: str, region: Region) -> dict:
    """What the label stage must know of a region, as JSON."""
    keep = None if region.keep is None else sorted(region.keep)
    return {"name": name, "box": [[side.start, side.stop] for side in region.box], "keep": keep}


def hide(structures: UInt8[ndarray, "i j k"], ids: Integer[ndarray, "i j k"], record: dict) -> set[int]:
    """Make background of what a region does not show, in place; returns the structures whose voxels its box cuts off."""
    seen = np.zeros(structures.shape[:2], bool)
    seen[tuple(slice(*side) for side in record["box"][:2])] = True
    cut = np.zeros(256, bool)
    for k in range(structures.shape[2]):
        plane = structures[:, :, k]
        if record["keep"] is not None:
            plane[~np.isin(ids[:, :, k], record["keep"])] = 0
        hidden = ~seen if record["box"][2][0] <= k < record["box"][2][1] else np.ones_like(seen)
        cut[plane[hidden]] = True
        plane[hidden] = 0
    return set(np.flatnonzero(cut).tolist()) - {0}


def _bounds(source: Labelled, keep: set[int], what: str) -> tuple[Integer[ndarray, "3"], Integer[ndarray, "3"]]:
    """First voxel and the one behind the last of some ids, per axis."""
    seen = [np.zeros(size, bool) for size in source.ids.shape]
    for k in range(source.ids.shape[2]):
        mask = np.isin(source.ids[:, :, k], sorted(keep))
        seen[0] |= mask.any(axis=1)
        seen[1] |= mask.any(axis=0)
        seen[2][k] = mask.any()
    sides = [np.flatnonzero(axis) for axis in seen]
    if not len(sides[0]):
        raise CaseError(ABSENT_CODE, f"the CT does not hold {what}, along which the region is cut")
    return np.array([side[0] for side in sides]), np.array([side[-1] + 1 for side in sides])


def _region(
    source: Labelled,
    low: ndarray,
    high: ndarray,
    margin_mm: tuple[float, ...],
    keep: frozenset[int] | None,
    cube: int,
    spacing_mm: float,
) -> Region:
    """The box with its margin, as far as the CT reaches, and the cube about its middle; E_REGION if a mask does not fit."""
    steps_mm = np.linalg.norm(source.affine[:3, :3], axis=0)
    margin = np.ceil(np.array(margin_mm) / steps_mm).astype(int)
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, source.ids.shape)
    box = (slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1])), slice(int(low[2]), int(high[2])))
    shape = (int(high[0] - low[0]), int(high[1] - low[1]), int(high[2] - low[2]))
    target = cube_affine(shape, cropped_affine(source.affine, box), cube=cube, spacing_mm=spacing_mm)
    corners = np.array(np.meshgrid(*([0, size - 1] for size in shape), indexing="ij")).reshape(3, -1)
    reach_mm = np.ptp(source.affine[:3, :3] @ corners, axis=1).max()
    if keep is not None and reach_mm > spacing_mm * (cube - 1):
        raise CaseError(
            "E_REGION",
            f"the structure measures {reach_mm:.0f} mm, expected at most {spacing_mm * (cube - 1):g}, the cube",
        )
    return Region(box, keep, target)
