"""From any affine grid onto the experiment's isotropic RAS cube, anti-aliased, through the full affine."""

from __future__ import annotations

from collections.abc import Iterator

import nibabel as nib
import numpy as np
from jaxtyping import Float, Integer, Real, UInt8
from numpy import ndarray
from scipy.ndimage import affine_transform, find_objects, gaussian_filter

PADDING_HU = -1024
HU_RANGE = (-1024, 3071)
_FWHM_PER_SIGMA = 2.3548
_TRUNCATE = 3.0
_TILE_VOXELS = 1 << 25
"""Source voxels smoothed at a time: 128 MB in float32, and about three such arrays are alive."""


def to_closest_ras(data: ndarray, affine: Float[ndarray, "4 4"]) -> tuple[ndarray, Float[ndarray, "4 4"]]:
    """Permute and flip an (i, j, k) array, without interpolation, so that its axes run closest to R, A, S."""
    orientation = nib.io_orientation(affine)
    turned = nib.apply_orientation(data, orientation)
    return turned, affine @ nib.orientations.inv_ornt_aff(orientation, data.shape)


def cube_affine(
    shape: tuple[int, int, int], affine: Float[ndarray, "4 4"], *, cube: int, spacing_mm: float
) -> Float[ndarray, "4 4"]:
    """Affine of the isotropic RAS cube whose centre is the world centre of the source grid."""
    centre = (affine @ np.append((np.array(shape) - 1) / 2, 1.0))[:3]
    target = np.diag([spacing_mm] * 3 + [1.0])
    target[:3, 3] = centre - spacing_mm * (cube - 1) / 2
    return target


def resample_ct(
    data_hu: Real[ndarray, "i j k"], affine: Float[ndarray, "4 4"], target: Float[ndarray, "4 4"], cube: int
) -> Integer[ndarray, "z y x"]:
    """CT on the cube as int16 HU.

    Clipped to [-1024, 3071] before anything is averaged; smoothed so that the target grid can hold what is left;
    -1024 outside the source. Done in tiles: beside the source and the cube it holds a few hundred megabytes.
    """
    sigma = smoothing_sigma(affine, target)
    resampled = np.full((cube,) * 3, PADDING_HU, np.int16)
    for region, box in _tiles((slice(0, cube),) * 3, data_hu.shape, affine, target, sigma):
        clipped = np.clip(data_hu[box], *HU_RANGE).astype(np.float32)
        smooth = gaussian_filter(clipped, sigma, mode="nearest", truncate=_TRUNCATE)
        sampled = _sample(smooth, _shifted(affine, box), target, region, outside=float(PADDING_HU))
        resampled[region] = np.clip(np.rint(sampled), *HU_RANGE)
    return resampled.T.copy()


def resample_label(
    label: UInt8[ndarray, "i j k"], affine: Float[ndarray, "4 4"], target: Float[ndarray, "4 4"], cube: int
) -> UInt8[ndarray, "z y x"]:
    """Label map on the cube: every structure, background too, is averaged like the CT; the largest share wins."""
    sigma = smoothing_sigma(affine, target)
    best = np.zeros((cube,) * 3, dtype=np.float32)
    total = np.zeros((cube,) * 3, dtype=np.float32)
    winner = np.zeros((cube,) * 3, dtype=np.uint8)
    margin = _margin(sigma) + np.ceil(np.abs((np.linalg.inv(affine) @ target)[:3, :3]).sum(axis=1)).astype(int)
    for value, found in enumerate(find_objects(label.T), start=1):
        if found is None:
            continue
        low = np.maximum([side.start for side in found[::-1]] - margin, 0)
        high = np.minimum([side.stop for side in found[::-1]] + margin, label.shape)
        within = tuple(map(slice, low, high))
        reach = _reach(high - low, _shifted(affine, within), target, cube)
        for region, box in _tiles(reach, label.shape, affine, target, sigma):
            mask = (label[box] == value).astype(np.float32)
            if not mask.any():
                continue
            smooth = gaussian_filter(mask, sigma, mode="nearest", truncate=_TRUNCATE)
            share = _sample(smooth, _shifted(affine, box), target, region, outside=0.0)
            total[region] += share
            wins = share > best[region]
            best[region] = np.where(wins, share, best[region])
            winner[region] = np.where(wins, np.uint8(value), winner[region])
    winner[best <= 1.0 - total] = 0
    return winner.T.copy()


def smoothing_sigma(affine: Float[ndarray, "4 4"], target: Float[ndarray, "4 4"]) -> Float[ndarray, "3"]:
    """Gaussian sigma per source axis, in voxels: full width at half maximum = one target voxel, 0 where not coarser."""
    factor = np.linalg.norm(target[:3, :3], axis=0).mean() / np.linalg.norm(affine[:3, :3], axis=0)
    return np.where(factor > 1.0, factor / _FWHM_PER_SIGMA, 0.0)


def _margin(sigma: Float[ndarray, "3"]) -> Integer[ndarray, "3"]:
    """Source voxels that smoothing and linear interpolation look beyond a point, per axis."""
    return np.floor(_TRUNCATE * sigma + 0.5).astype(int) + 1


def _shifted(affine: ndarray, box: tuple[slice, ...]) -> ndarray:
    """The affine of `data[box]`."""
    shifted = affine.copy()
    shifted[:3, 3] = (affine @ np.append([float(side.start) for side in box], 1.0))[:3]
    return shifted


def _tiles(
    region: tuple[slice, ...], shape: tuple[int, ...], affine: ndarray, target: ndarray, sigma: ndarray
) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Parts of a target region, each with the box of the source that it needs, halved until the box is small.

    Parts that the source does not reach are left out. A part is computed from its box alone as from the whole source.
    """
    to_source = np.linalg.inv(affine) @ target
    corners = np.array(np.meshgrid(*([side.start, side.stop - 1] for side in region), indexing="ij")).reshape(3, -1)
    at_source = to_source[:3, :3] @ corners + to_source[:3, 3:]
    low = np.maximum(np.floor(at_source.min(axis=1)).astype(int) - _margin(sigma), 0)
    high = np.minimum(np.ceil(at_source.max(axis=1)).astype(int) + 1 + _margin(sigma), shape)
    if (high <= low).any():
        return
    sizes = [side.stop - side.start for side in region]
    if np.prod(high - low, dtype=float) <= _TILE_VOXELS or max(sizes) == 1:
        yield region, tuple(map(slice, low.tolist(), high.tolist()))
        return
    axis = int(np.argmax(sizes))
    middle = region[axis].start + sizes[axis] // 2
    for half in (slice(region[axis].start, middle), slice(middle, region[axis].stop)):
        yield from _tiles((*region[:axis], half, *region[axis + 1 :]), shape, affine, target, sigma)


def _sample(data: ndarray, affine: ndarray, target: ndarray, region: tuple[slice, ...], *, outside: float) -> ndarray:
    to_source = np.linalg.inv(affine) @ target
    start = np.array([side.start for side in region], dtype=float)
    offset = to_source[:3, :3] @ start + to_source[:3, 3]
    shape = tuple(side.stop - side.start for side in region)
    return affine_transform(
        data, to_source[:3, :3], offset, output_shape=shape, order=1, mode="grid-constant", cval=outside
    )


def _reach(shape: ndarray, affine: ndarray, target: ndarray, cube: int) -> tuple[slice, ...]:
    """Box of the target grid that a source box can touch."""
    corners = np.array(np.meshgrid(*([-1, size] for size in shape), indexing="ij")).reshape(3, -1)
    at_target = (np.linalg.inv(target) @ affine @ np.vstack([corners, np.ones(corners.shape[1])]))[:3]
    low = np.clip(np.floor(at_target.min(axis=1)), 0, cube - 1).astype(int)
    high = np.clip(np.ceil(at_target.max(axis=1)) + 1, low + 1, cube).astype(int)
    return tuple(map(slice, low.tolist(), high.tolist()))
