"""What every contestant projects: one analytic patient, a few views, and two exact answers written for this file alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float, Int16
from numpy import ndarray
from scipy.ndimage import map_coordinates

from pipeline.geometry import View, make_view

MU_WATER_PER_MM = 0.02059
"""Attenuation of water at 60 keV (NIST XCOM: 0.2059 cm2/g): only the scale of the picture depends on it."""
_RAYS_AT_ONCE = 2048


def patient(size: int) -> Int16[ndarray, "z y x"]:
    """An asymmetric chest in HU, `size` voxels along each edge: smooth tissue, sharp bones, air all around it."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, size, dtype=np.float32)] * 3, indexing="ij", sparse=True)

    def ellipsoid(centre_xyz: tuple[float, ...], radii_xyz: tuple[float, ...]) -> Float[ndarray, "z y x"]:
        """Signed depth in about half edges, positive inside."""
        (cx, cy, cz), (rx, ry, rz) = centre_xyz, radii_xyz
        distance = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2)
        return (1 - distance) * min(radii_xyz)

    def soft(depth: Float[ndarray, "z y x"], width: float) -> Float[ndarray, "z y x"]:
        return 1 / (1 + np.exp(-np.clip(depth / width, -40, 40)))

    hu = np.full((size, size, size), -1000, np.float32)
    body = soft(ellipsoid((0.02, 0, 0.03), (0.82, 0.56, 0.88)), 0.012)
    hu += body * (960 - 60 * np.cos(5 * x + 2 * y) * np.cos(3 * z - y))
    for centre, radii in (((0.36, -0.04, 0.22), (0.28, 0.36, 0.52)), ((-0.38, -0.02, 0.18), (0.24, 0.33, 0.47))):
        hu -= soft(ellipsoid(centre, radii), 0.015) * (780 + 60 * np.sin(9 * x + 7 * z))
    hu += soft(ellipsoid((-0.12, -0.16, 0.08), (0.27, 0.22, 0.27)), 0.02) * 520
    hu += soft(ellipsoid((0.34, 0.05, -0.44), (0.36, 0.30, 0.24)), 0.02) * 65
    for number in range(7):
        level = -0.42 + 0.16 * number
        hu[ellipsoid((0.02, 0.36, level), (0.10, 0.09, 0.062)) > 0] = 480 + 40 * number
        shell = ellipsoid((0.02, 0, level), (0.74, 0.49, 0.9))
        rib = (np.abs(shell) < 0.018) & (np.abs(z - level - 0.25 * y) < 0.032) & (y < 0.45)
        hu[rib] = 750
    hu[(np.abs(x + 0.5) < 0.03) & (np.abs(y + 0.1) < 0.25) & (np.abs(z + 0.6) < 0.02)] = 1500
    hu[np.broadcast_to(np.maximum(np.maximum(np.abs(x), np.abs(y)), np.abs(z)) > 0.96, hu.shape)] = -1000
    return np.clip(np.round(hu), -1000, 3071).astype(np.int16)


def load_ct(path: Path, size: int) -> Int16[ndarray, "z y x"]:
    """The middle of a NIfTI CT in HU, cut or filled up with air to `size` voxels along each edge, axes turned to RAS."""
    image = nib.as_closest_canonical(nib.load(path))
    hu = np.clip(np.asarray(image.dataobj), -1000, 3071).astype(np.int16).transpose(2, 1, 0)
    for axis in range(3):
        begin = max((hu.shape[axis] - size) // 2, 0)
        hu = hu.take(range(begin, min(begin + size, hu.shape[axis])), axis=axis)
    missing = [size - length for length in hu.shape]
    return np.pad(hu, [(gap // 2, gap - gap // 2) for gap in missing], constant_values=-1000)


def attenuation(ct_hu: Int16[ndarray, "z y x"]) -> Float[ndarray, "z y x"]:
    """HU -> attenuation per mm (float32, air is 0), in the layout in which our kernels are warm: z runs fastest."""
    return np.asfortranarray(np.maximum(ct_hu.astype(np.float32) * (MU_WATER_PER_MM / 1000) + MU_WATER_PER_MM, 0))


def centred_affine(shape: tuple[int, int, int], spacing_mm: float = 1.0) -> Float[ndarray, "4 4"]:
    """Index (x, y, z, 1) -> RAS mm with the centre of the grid at the origin."""
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = -(np.array(shape[::-1]) - 1) / 2 * spacing_mm
    return affine


def cone_views(names: Sequence[str | dict], pixels: int, pixel_mm: float, **detector: object) -> list[View]:
    """Views around the origin: source-detector distance 1020 mm, source-object distance 530 mm."""
    size, distances = (pixels, pixels), {"sdd_mm": 1020.0, "sod_mm": 530.0}
    return [
        make_view(name, np.zeros(3), beam="cone", detector_px=size, pixel_mm=pixel_mm, **distances, **detector)
        for name in names
    ]


def parallel_views(angles_deg: Sequence[float], pixels: int) -> list[View]:
    """Parallel beams in the axial plane, pixels of 1 mm around the origin."""
    size = (pixels, pixels)
    return [
        make_view(
            {"name": f"{angle:g}", "alpha_deg": angle}, np.zeros(3), beam="parallel", detector_px=size, pixel_mm=1.0
        )
        for angle in angles_deg
    ]


def some_pixels(view: View, stride: int) -> Bool[ndarray, "v u"]:
    """The pixels where the exact answers are worked out: every `stride`-th, on rows that shift from column to column."""
    v, u = np.indices(view.shape)
    return ((u % stride) == 0) & (((v + u // stride) % stride) == 0)


def exact_trilinear(
    mu_per_mm: Float[ndarray, "z y x"], affine: Float[ndarray, "4 4"], view: View, pixels: Bool[ndarray, "v u"]
) -> Float[ndarray, "ray"]:
    """T: the integral of the trilinear interpolant, which falls to 0 within one voxel beyond the outermost centres.

    Between two planes of voxel centres it is a cubic along the ray, so Simpson's rule gives it without error.
    """
    padded = np.pad(mu_per_mm.astype(np.float64), 1)

    def integral(start: ndarray, ray: ndarray, cuts: ndarray) -> ndarray:
        ends = np.stack([cuts[:, :-1], (cuts[:, :-1] + cuts[:, 1:]) / 2, cuts[:, 1:]])
        xyz = start[:, None] + ends[..., None] * ray[:, None] + 1.0
        value = map_coordinates(padded, np.moveaxis(xyz[..., ::-1], -1, 0), order=1, mode="constant", cval=0.0)
        return (np.diff(cuts) * (value[0] + 4 * value[1] + value[2]) / 6).sum(axis=1)

    planes = [np.arange(-1, size + 1, dtype=np.float64) for size in mu_per_mm.shape[::-1]]
    return _along_rays(affine, view, pixels, planes, integral)


def exact_siddon(
    mu_per_mm: Float[ndarray, "z y x"], affine: Float[ndarray, "4 4"], view: View, pixels: Bool[ndarray, "v u"]
) -> Float[ndarray, "ray"]:
    """S: the exact path through cubic voxels of constant attenuation (Siddon 1985), in float64."""
    sizes = np.array(mu_per_mm.shape[::-1])

    def integral(start: ndarray, ray: ndarray, cuts: ndarray) -> ndarray:
        middle = (cuts[:, :-1] + cuts[:, 1:]) / 2
        xyz = np.floor(start[:, None] + middle[..., None] * ray[:, None] + 0.5).astype(np.int64)
        inside = ((xyz >= 0) & (xyz < sizes)).all(axis=-1)
        x, y, z = np.moveaxis(np.clip(xyz, 0, sizes - 1), -1, 0)
        return (np.diff(cuts) * inside * mu_per_mm[z, y, x].astype(np.float64)).sum(axis=1)

    return _along_rays(affine, view, pixels, [np.arange(size + 1) - 0.5 for size in sizes], integral)


def _along_rays(
    affine: Float[ndarray, "4 4"],
    view: View,
    pixels: Bool[ndarray, "v u"],
    planes: Sequence[Float[ndarray, "plane"]],
    integral: Callable[[ndarray, ndarray, ndarray], ndarray],
) -> Float[ndarray, "ray"]:
    """Cut each ray (start + t * ray in index space, t in mm) at every plane it meets and integrate between the cuts."""
    to_index = np.linalg.inv(affine)
    pixel_mm, along = view.rays()
    start = pixel_mm[pixels] @ to_index[:3, :3].T + to_index[:3, 3]
    ray = along[pixels] @ to_index[:3, :3].T
    ray = np.where(np.abs(ray) < 1e-15, 1e-15, ray)
    line_integral = np.empty(len(start))
    for begin in range(0, len(start), _RAYS_AT_ONCE):
        some = slice(begin, begin + _RAYS_AT_ONCE)
        meets = [(plane - start[some, axis, None]) / ray[some, axis, None] for axis, plane in enumerate(planes)]
        ends = [np.sort(meet[:, [0, -1]]) for meet in meets]
        enter = np.max([end[:, 0] for end in ends], axis=0)[:, None]
        leave = np.maximum(np.min([end[:, 1] for end in ends], axis=0)[:, None], enter)
        cuts = np.sort(np.clip(np.concatenate(meets, axis=1), enter, leave))
        line_integral[some] = integral(start[some], ray[some], cuts)
    return line_integral


def mean_error(image: Float[ndarray, "ray"], exact: Float[ndarray, "ray"]) -> float:
    """Mean relative error where the exact ray is above 5 % of the largest."""
    seen = exact > 0.05 * exact.max()
    return float(np.mean(np.abs(image[seen].astype(np.float64) - exact[seen]) / exact[seen]))
