"""DeepDRR on its own GPU code (optional, GPL-3.0: imported when asked for, never required), to compare ourselves with.

Not yet run on a GPU by this project: what DeepDRR is told about the geometry is tested, its pictures are not.
It does what physics `realistic` with materials `deepdrr-v1` does here, but looks materials up in the nearest voxel while
it interpolates density, ends its volume half a voxel beyond the outermost centres, and knows no scatter.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int16
from numpy import ndarray

from pipeline.errors import UserError
from pipeline.geometry import View

SPECTRA = ("60KV_AL35", "90KV_AL40", "120KV_AL43")


def project_deepdrr(
    ct_hu: Int16[ndarray, "z y x"],
    affine: Float[ndarray, "4 4"],
    views: Sequence[View],
    *,
    spectrum: str,
    photons: int = 0,
    seed: int = 0,
) -> Float32[ndarray, "view v u"]:
    """Detected energy relative to the open field (1 = nothing in the beam), by DeepDRR 1.2.

    `affine` maps index (x, y, z, 1) to RAS mm; `photons` per pixel make its Poisson noise (0 = none), seeded by `seed`.
    """
    if spectrum not in SPECTRA:
        raise UserError(
            f"spectrum {spectrum!r} is not one of DeepDRR's; expected one of: {', '.join(SPECTRA)}. Name one."
        )
    for view in views:
        if not view.source_mm[3]:
            raise UserError(
                f"view {view.name}: DeepDRR draws cone beams only; expected beam 'cone'. Choose another backend."
            )
    volume_class, geo, projector_class = _load()
    cameras = [_camera_projection(geo, view) for view in views]
    distance_mm = float(np.linalg.norm(views[0].detector_mm()[0] - views[0].source_mm[:3]))
    import nibabel as nib

    with tempfile.TemporaryDirectory() as folder:  # its public way in is a file, beside which it keeps a cache
        path = Path(folder) / "ct.nii.gz"
        nib.save(nib.Nifti1Image(ct_hu.transpose(2, 1, 0), affine), path)
        volume = volume_class.from_nifti(path, use_thresholding=True, use_cached=False)
        drawer = projector_class(
            volume,
            camera_intrinsics=cameras[0].intrinsic,
            source_to_detector_distance=distance_mm,
            spectrum=spectrum,
            add_noise=photons > 0,
            photon_count=photons,
            neglog=False,
        )
        before = np.random.get_state()
        np.random.seed(seed)  # DeepDRR draws from NumPy's global generator
        try:
            with drawer:
                energy_kev = np.stack([drawer(camera) for camera in cameras])
        finally:
            np.random.set_state(before)
    ev, fluence = np.asarray(drawer.spectrum_arr).T
    open_field_kev = (ev * fluence).sum() / fluence.sum() / 1000
    mirrored = [camera_of(view)[2] for view in views]
    images = [image[:, ::-1] if flip else image for image, flip in zip(energy_kev, mirrored, strict=True)]
    return (np.stack(images) / open_field_kev).astype(np.float32)


def camera_of(view: View) -> tuple[Float[ndarray, "3 3"], Float[ndarray, "4 4"], bool]:
    """Intrinsics, world-to-camera matrix, and whether the image comes out mirrored.

    DeepDRR's cameras are right-handed (x along columns, y along rows, z to the detector), pixel (v, u) has its centre at
    (u + 1/2, v + 1/2). Our views look back from the detector, so their camera counts columns from the other side.
    """
    u, v, corner = view.step_u_mm, view.step_v_mm, view.origin_mm - view.source_mm[:3]
    mirrored = bool(np.cross(u, v) @ corner < 0)
    if mirrored:
        corner, u = corner + (view.shape[1] - 1) * u, -u
    pixel_u, pixel_v = np.linalg.norm(u), np.linalg.norm(v)
    axes = np.stack([u / pixel_u, v / pixel_v, np.cross(u, v) / (pixel_u * pixel_v)])
    left, top, distance = axes @ corner
    intrinsic = np.array(
        [
            [distance / pixel_u, 0, 0.5 - left / pixel_u],
            [0, distance / pixel_v, 0.5 - top / pixel_v],
            [0, 0, 1],
        ]
    )
    to_camera = np.eye(4)
    to_camera[:3, :3], to_camera[:3, 3] = axes, -axes @ view.source_mm[:3]
    return intrinsic, to_camera, mirrored


def _camera_projection(geo: object, view: View) -> object:
    intrinsic, to_camera, _ = camera_of(view)
    rows, columns = view.shape
    transform = geo.CameraIntrinsicTransform(intrinsic, sensor_height=rows, sensor_width=columns)
    return geo.CameraProjection(transform, geo.FrameTransform(to_camera))


def has_gpu() -> bool:
    """Whether an NVIDIA driver is here and finds its GPU."""
    try:
        return ctypes.CDLL("libcuda.so.1").cuInit(0) == 0
    except OSError:
        return False


def _load() -> tuple[object, object, object]:
    """DeepDRR's `Volume`, `geo` and `Projector`; a machine that lacks it or its GPU is told what to do."""
    remedy = (
        "Create the environment pipeline/envs/deepdrr.yaml with conda on a machine with an NVIDIA GPU and its driver, or "
        "use physics 'realistic' with materials 'deepdrr-v1', which runs on any machine."
    )
    if not has_gpu():
        raise UserError(f"deepdrr finds no NVIDIA GPU with a driver; expected one with CUDA 12. {remedy}")
    try:
        from deepdrr import Volume, geo
        from deepdrr.projector import Projector
    except ImportError as error:
        raise UserError(
            f"deepdrr cannot be imported: {error}; expected the package deepdrr 1.2 with CUDA. {remedy}"
        ) from error
    return Volume, geo, Projector
