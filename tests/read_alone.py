"""A reader that knows nothing of us: h5py, NumPy and resources/shard.md. `python tests/read_alone.py SHARD.h5 ...`

It pushes /ct through /xray/<simulator>/projection by its own ray marching and compares with the stored images, and it
looks where heart, spine and head appear.
"""

from __future__ import annotations

import sys

import h5py
import numpy as np


def rays(projection, shape):
    """Per pixel a point on its ray and the unit direction, from the 3x4 matrix alone."""
    v, u = np.indices(shape, dtype=float)
    pixel = np.stack([u, v, np.ones(shape)], axis=-1)
    if np.array_equal(projection[2], [0, 0, 0, 1]):
        direction = np.cross(projection[0, :3], projection[1, :3])
        point = (pixel[..., :2] - projection[:2, 3]) @ np.linalg.pinv(projection[:2, :3]).T
        direction = np.broadcast_to(direction, point.shape)
    else:
        inverse = np.linalg.inv(projection[:, :3])
        point = np.broadcast_to(-inverse @ projection[:, 3], pixel.shape)
        direction = pixel @ inverse.T
    return point, direction / np.linalg.norm(direction, axis=-1, keepdims=True)


def trilinear(volume, xyz):
    """Value at index (x, y, z), the volume being 0 beyond its outermost voxels."""
    low = np.floor(xyz).astype(int)
    value = 0.0
    for corner in np.ndindex(2, 2, 2):
        at = low + corner
        weight = np.prod(np.where(corner, xyz - low, 1 - (xyz - low)), axis=-1)
        inside = ((at >= 0) & (at < volume.shape[::-1])).all(axis=-1)
        x, y, z = np.moveaxis(np.where(inside[..., None], at, 0), -1, 0)
        value = value + weight * inside * volume[z, y, x]
    return value


def line_integrals(mu, affine, projection, shape, step_mm):
    """March every ray through the whole volume."""
    point, direction = rays(projection, shape)
    reach = np.array(mu.shape[::-1]) + 1.0
    corners = np.array([affine @ np.append(corner * reach - 1, 1.0) for corner in np.ndindex(2, 2, 2)])[:, :3]
    centre, radius = corners.mean(axis=0), np.linalg.norm(corners - corners.mean(axis=0), axis=1).max()
    middle = point + ((centre - point) * direction).sum(axis=-1, keepdims=True) * direction
    to_index = np.linalg.inv(affine)
    image = np.zeros(shape)
    for t in np.arange(-radius, radius, step_mm) + step_mm / 2:
        world = middle + t * direction
        image += trilinear(mu, world @ to_index[:3, :3].T + to_index[:3, 3]) * step_mm
    return image


def compare(path, case=0):
    """(simulator, view, mean error relative to the mean of the image where it exceeds 5 % of its maximum)."""
    with h5py.File(path, "r") as file:
        ct, affine = file["ct"][case].astype(float), file["case/affine"][case]
        for name, group in file["xray"].items():
            mu = group.attrs["mu_water_per_mm"] * np.maximum(0.0, 1.0 + ct / 1000.0)
            for number, view in enumerate(group["view"].asstr()[:]):
                stored = group["image"][case, number]
                step = np.linalg.norm(affine[:3, 0]) / 3
                own = line_integrals(mu, affine, group["projection"][case, number], stored.shape, step)
                shown = stored > 0.05 * stored.max()
                yield name, view, np.abs(own - stored)[shown].mean() / stored[shown].mean()


def pixel_of(file, simulator, case, view, structure):
    """Pixel (u, v) of a structure's centroid, through the affine and the matrix; None where it is not labelled."""
    names = file["label"].attrs["flag_meanings"].split()
    voxels = np.argwhere(file["label"][case] == names.index(structure)) if structure in names else []
    if not len(voxels):
        return None
    world = file["case/affine"][case] @ np.append(voxels.mean(axis=0)[::-1], 1.0)
    u, v, w = file[f"xray/{simulator}/projection"][case, view] @ world
    return u / w, v / w


def anatomy(path, case=0):
    """What a radiologist expects of PA and left lateral images of a chest, as (sentence, holds) pairs."""
    with h5py.File(path, "r") as file:
        for simulator in file["xray"]:
            views = list(file[f"xray/{simulator}/view"].asstr()[:])
            columns = file[f"xray/{simulator}/image"].shape[-1]

            def at(structure, view):
                return pixel_of(file, simulator, case, views.index(view), structure)  # noqa: B023

            heart, spine, liver = (at(name, "PA") for name in ("heart", "vertebrae", "liver"))
            if heart and spine:
                yield f"{simulator} PA: heart right of the spine in the image (patient's left)", heart[0] > spine[0]
                yield (
                    f"{simulator} LAT: spine right of the heart in the image (behind it)",
                    at("vertebrae", "LAT")[0] > at("heart", "LAT")[0],
                )
                yield f"{simulator} PA: spine near the middle", abs(spine[0] - columns / 2) < columns / 4
            if heart and spine and liver:
                yield f"{simulator} PA: liver left of the spine in the image (patient's right)", liver[0] < spine[0]
                yield f"{simulator} PA: heart above the liver (head up)", heart[1] < liver[1]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name)
        for simulator, view, error in compare(name):
            print(f"  {simulator:<10}{view:<6}mean error {100 * error:.3f} %")
        for sentence, holds in anatomy(name):
            print(f"  {'yes' if holds else 'NO '}  {sentence}")
