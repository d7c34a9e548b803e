"""From any affine grid onto the experiment's isotropic RAS cube, anti-aliased, through the full affine."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from jaxtyping import Float, Integer, Real, UInt8
from numpy import ndarray
from scipy.ndimage import affine_transform, find_objects, gaussian_filter

PADDING_HU = -1024
HU_RANGE = (-1024, 3071)
_FWHM_PER_SIGMA = 2.3548


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
    -1024 outside the source.
    """
    clipped = np.clip(data_hu, *HU_RANGE).astype(np.float32)
    smooth = gaussian_filter(clipped, smoothing_sigma(affine, target), mode="nearest", truncate=3.0)
    sampled = _sample(smooth, affine, target, cube, outside=float(PADDING_HU))
    return np.clip(np.rint(sampled), *HU_RANGE).astype(np.int16).T.copy()


def resample_label(
    label: UInt8[ndarray, "i j k"], affine: Float[ndarray, "4 4"], target: Float[ndarray, "4 4"], cube: int
) -> UInt8[ndarray, "z y x"]:
    """Label map on the cube: every structure, background too, is averaged like the CT; the largest share wins."""
    sigma = smoothing_sigma(affine, target)
    to_source = np.linalg.inv(affine) @ target
    best = np.zeros((cube,) * 3, dtype=np.float32)
    total = np.zeros((cube,) * 3, dtype=np.float32)
    winner = np.zeros((cube,) * 3, dtype=np.uint8)
    margin = np.ceil(3 * sigma + 2 * np.abs(to_source[:3, :3]).sum(axis=1)).astype(int)
    for value, box in enumerate(find_objects(label), start=1):
        if box is None:
            continue
        low = np.array([side.start for side in box]) - margin
        high = np.minimum([side.stop for side in box] + margin, label.shape)
        low = np.maximum(low, 0)
        mask = (label[tuple(map(slice, low, high))] == value).astype(np.float32)
        shifted = affine.copy()
        shifted[:3, 3] = (affine @ np.append(low, 1.0))[:3]
        smooth = gaussian_filter(mask, sigma, mode="nearest", truncate=3.0)
        region = _reach(mask.shape, shifted, target, cube)
        share = _sample(smooth, shifted, target, cube, outside=0.0, region=region)
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


def _sample(
    data: ndarray,
    affine: ndarray,
    target: ndarray,
    cube: int,
    *,
    outside: float,
    region: tuple[slice, ...] | None = None,
) -> ndarray:
    region = region or (slice(0, cube),) * 3
    to_source = np.linalg.inv(affine) @ target
    start = np.array([side.start for side in region], dtype=float)
    offset = to_source[:3, :3] @ start + to_source[:3, 3]
    shape = tuple(side.stop - side.start for side in region)
    return affine_transform(
        data, to_source[:3, :3], offset, output_shape=shape, order=1, mode="grid-constant", cval=outside
    )


def _reach(shape: tuple[int, ...], affine: ndarray, target: ndarray, cube: int) -> tuple[slice, ...]:
    """Box of the target grid that a source box can touch."""
    corners = np.array(np.meshgrid(*([-1, size] for size in shape), indexing="ij")).reshape(3, -1)
    at_target = (np.linalg.inv(target) @ affine @ np.vstack([corners, np.ones(corners.shape[1])]))[:3]
    low = np.clip(np.floor(at_target.min(axis=1)), 0, cube - 1).astype(int)
    high = np.clip(np.ceil(at_target.max(axis=1)) + 1, low + 1, cube).astype(int)
    return tuple(map(slice, low, high))
