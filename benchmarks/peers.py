"""The other simulators, each made to draw our views: their axes, units and signs are absorbed here, once per peer.

A peer is prepared with a warm volume (in the layout it likes) and the views, and returns a function that draws them all:
(view, v, u), dimensionless line integrals, pixels as our `View` has them. World coordinates are handed over as they are:
no peer knows what "left" means, so RAS mm may stand where it would write LPS mm.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from benchmarks.scene import centred_affine
from pipeline.geometry import View

Draw = Callable[[], ndarray]
"""Draws all views once: (view, v, u), dimensionless."""
Clock = Callable[[], float]
"""Draws all views once and says what that cost: CPU seconds, summed over threads."""
Prepare = Callable[[ndarray, ndarray, Sequence[View]], "tuple[Draw, Clock]"]
"""(mu_per_mm (z, y, x), affine, views) -> how to draw them and how to time it."""

RAY_SAMPLES = 256
"""Samples per ray for the simulators that march: about one per voxel at 256^3."""
_ANGLES_PER_RUN = 8


class NotInstalled(Exception):
    """The peer cannot run here; the message says what is missing."""


@dataclass(frozen=True)
class Peer:
    """One peer; `exact` names the answer it aims at (T trilinear, S Siddon)."""

    name: str
    package: str
    exact: str
    prepare: Prepare

    def version(self) -> str:
        """Version of the installed package; empty where it did not come by pip."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return ""


def threads_clock(draw: Draw) -> Clock:
    """CPU time of this process, all its threads."""

    def clock() -> float:
        start = time.process_time()
        draw()
        return time.process_time() - start

    return clock


def camera(view: View) -> tuple[Float[ndarray, "3 3"], Float[ndarray, "4 4"]]:
    """Intrinsics (camera mm -> column + 0.5, row + 0.5) and camera-to-world matrix; camera axes are u, v, towards the
    detector. With our views that camera is left-handed, which a peer that only multiplies matrices never notices."""
    u, v = view.step_u_mm, view.step_v_mm
    axes = np.stack([u / np.linalg.norm(u), v / np.linalg.norm(v), np.zeros(3)], axis=1)
    normal = np.cross(u, v) / np.linalg.norm(np.cross(u, v))
    corner = view.origin_mm - view.source_mm[:3]
    axes[:, 2] = normal * np.sign(normal @ corner)
    left, top, distance = axes.T @ corner
    pixel_u, pixel_v = np.linalg.norm(u), np.linalg.norm(v)
    intrinsic = np.array(
        [
            [distance / pixel_u, 0, 0.5 - left / pixel_u],
            [0, distance / pixel_v, 0.5 - top / pixel_v],
            [0, 0, 1],
        ]
    )
    to_world = np.eye(4)
    to_world[:3, :3], to_world[:3, 3] = axes, view.source_mm[:3]
    return intrinsic, to_world


def prepare_rtk(
    mu_per_mm: Float[ndarray, "z y x"], affine: Float[ndarray, "4 4"], views: Sequence[View]
) -> tuple[Draw, Clock]:
    """RTK's Joseph forward projector. Its geometry takes our vectors as they are (Reg23 form), any pose."""
    _require("itk-rtk")
    draw = rtk_pair(np.ascontiguousarray(mu_per_mm), affine, views)
    return draw, threads_clock(draw)


def rtk_pair(mu_per_mm: Float[ndarray, "z y x"], affine: Float[ndarray, "4 4"], views: Sequence[View]) -> Draw:
    """The part of `prepare_rtk` that a cold start pays for too."""
    import itk

    floats = itk.Image[itk.F, 3]
    volume = itk.image_view_from_array(mu_per_mm)
    volume.SetSpacing([float(size) for size in np.diag(affine)[:3]])
    volume.SetOrigin([float(mm) for mm in affine[:3, 3]])
    geometry = itk.RTK.ThreeDCircularProjectionGeometry.New()
    for view in views:
        steps = [step / np.linalg.norm(step) for step in (view.step_u_mm, view.step_v_mm)]
        vectors = [list(map(float, vector)) for vector in (view.source_mm[:3], view.origin_mm, *steps)]
        if not geometry.AddProjection(*vectors):
            raise ValueError(f"RTK refuses view {view.name}")
    stack = itk.RTK.ConstantImageSource[floats].New()
    rows, columns = views[0].shape
    stack.SetSize([columns, rows, len(views)])
    stack.SetSpacing([float(np.linalg.norm(views[0].step_u_mm)), float(np.linalg.norm(views[0].step_v_mm)), 1.0])
    stack.SetOrigin([0.0, 0.0, 0.0])
    stack.SetConstant(0.0)
    joseph = itk.RTK.JosephForwardProjectionImageFilter[floats, floats].New()
    joseph.SetInput(0, stack.GetOutput())
    joseph.SetInput(1, volume)
    joseph.SetGeometry(geometry)

    def draw(_owner_of_the_voxels: ndarray = mu_per_mm) -> ndarray:
        stack.Modified()
        joseph.Modified()
        joseph.Update()
        return itk.array_view_from_image(joseph.GetOutput())

    return draw


def prepare_plastimatch(
    mu_per_mm: Float[ndarray, "z y x"],
    affine: Float[ndarray, "4 4"],
    views: Sequence[View],
    *,
    whole_program: bool = False,
) -> tuple[Draw, Clock]:
    """plastimatch's exact path through voxels, a program of its own; PA and LAT only (it turns its own gantry).

    Its integral is in mu per mm times cm (x10), its columns run the other way. Its warm time is a run that draws several
    views less a run that reads the same volume and draws single pixels; `whole_program` times what its users pay, one run
    for the pair, with its start and the reading of the volume.
    """
    program = _plastimatch()
    if [view.name for view in views] != ["PA", "LAT"]:
        raise NotInstalled("drawn at PA and LAT only")
    folder = tempfile.TemporaryDirectory(prefix="plastimatch-")
    path = Path(folder.name)
    _write_mha(path / "volume.mha", mu_per_mm, affine)
    rows, columns = views[0].shape
    pixel_mm = float(np.linalg.norm(views[0].step_u_mm))
    centre = views[0].origin_mm + (rows - 1) / 2 * views[0].step_v_mm + (columns - 1) / 2 * views[0].step_u_mm
    sid_mm = np.linalg.norm(centre - views[0].source_mm[:3])

    def run(angles: int, size: tuple[int, int], _keeps_the_files: tempfile.TemporaryDirectory = folder) -> float:
        command = [
            *(program, "drr", "--algorithm", "exact", "--hu-conversion", "none", "--output-format", "pfm"),
            *("--sad", f"{np.linalg.norm(views[0].source_mm[:3])}", "--sid", f"{sid_mm}", "--isocenter", "0 0 0"),
            *("--dim", f"{size[0]} {size[1]}", "--detector-size", f"{rows * pixel_mm} {columns * pixel_mm}"),
            *("--num-angles", f"{angles}", "--gantry-angle-spacing", "90"),
            *("--output", path / "drr", path / "volume.mha"),
        ]
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(running.pid, 0)  # of this program alone, not of whatever else ends meanwhile
        running.returncode = os.waitstatus_to_exitcode(status)
        if running.returncode or not (path / "volume.mha").exists():  # it ends with 0 where there is nothing to read
            raise subprocess.CalledProcessError(running.returncode, command)
        return usage.ru_utime + usage.ru_stime

    def draw() -> ndarray:
        run(2, (rows, columns))
        lateral, frontal = (_read_pfm(path / f"drr{number:04d}.pfm")[:, ::-1] * 10 for number in range(2))
        return np.stack([frontal, lateral])

    def clock() -> float:
        if whole_program:
            return run(2, (rows, columns))
        return (run(_ANGLES_PER_RUN, (rows, columns)) - run(_ANGLES_PER_RUN, (1, 1))) / _ANGLES_PER_RUN * 2

    return draw, clock


def prepare_nanodrr(
    mu_per_mm: Float[ndarray, "z y x"], affine: Float[ndarray, "4 4"], views: Sequence[View], *, compiled: bool = False
) -> tuple[Draw, Clock]:
    """nanodrr's renderer, all views as one batch. Its pixel centres lie at half integers."""
    _require("nanodrr")
    import torch
    from nanodrr.data import Subject
    from nanodrr.drr import render

    def tensor(array: ndarray) -> torch.Tensor:
        return torch.tensor(np.asarray(array), dtype=torch.float32)

    sizes = np.array(mu_per_mm.shape[::-1])
    to_grid = np.diag([*2 / sizes, 1.0])
    to_grid[:3, 3] = 1 / sizes - 1
    image = tensor(np.ascontiguousarray(mu_per_mm))[None, None]
    geometry = tensor(affine), tensor(np.linalg.inv(affine)), tensor(to_grid)
    subject = Subject(image, torch.zeros(1, 1, 1, 1, 1), *geometry, torch.zeros(3), max_label=0, convert_to_mu=False)
    cameras = [camera(view) for view in views]
    k_inv = tensor([np.linalg.inv(intrinsic) for intrinsic, _ in cameras])
    rt_inv = tensor([to_world for _, to_world in cameras])
    pixel_mm = [np.linalg.norm(view.step_u_mm) for view in views]
    distance = tensor([intrinsic[0, 0] * size for (intrinsic, _), size in zip(cameras, pixel_mm, strict=True)])
    rows, columns = views[0].shape
    drawer = torch.compile(render) if compiled else render

    def draw() -> ndarray:
        with torch.inference_mode():
            images = drawer(subject, k_inv, rt_inv, distance, rows, columns, n_samples=RAY_SAMPLES)
        return images[:, 0].numpy()

    return draw, threads_clock(draw)


def prepare_diffdrr(
    mu_per_mm: Float[ndarray, "z y x"], affine: Float[ndarray, "4 4"], views: Sequence[View], *, renderer: str
) -> tuple[Draw, Clock]:
    """DiffDRR's renderers on rays in voxel coordinates, an image at a time (its own default)."""
    _require("diffdrr")
    import torch
    from diffdrr.renderers import Siddon, Trilinear

    to_index = np.linalg.inv(affine)

    def tensor(points_mm: Float[ndarray, "n 3"]) -> torch.Tensor:
        return torch.tensor(points_mm @ to_index[:3, :3].T + to_index[:3, 3], dtype=torch.float32)[None]

    rays = []
    for view in views:
        pixel_mm, source = view.rays()[0].reshape(-1, 3), view.source_mm[:3]
        length = torch.tensor(np.linalg.norm(pixel_mm - source, axis=1), dtype=torch.float32)[None, None]
        rays.append((tensor(source[None]), tensor(pixel_mm), length))
    # The memory layout of its own `DRR` module: (x, y, z), z fastest.
    volume = torch.tensor(np.ascontiguousarray(mu_per_mm.transpose(2, 1, 0)), dtype=torch.float32)
    drawer = Siddon() if renderer == "siddon" else Trilinear()
    options = {} if renderer == "siddon" else {"n_points": RAY_SAMPLES}

    def draw() -> ndarray:
        with torch.inference_mode():
            images = [drawer(volume, *ray, **options)[0, 0] for ray in rays]
        return torch.stack(images).reshape(len(views), *views[0].shape).numpy()

    return draw, threads_clock(draw)


def prepare_astra(
    mu_per_mm: Float[ndarray, "z y x"], affine: Float[ndarray, "4 4"], views: Sequence[View]
) -> tuple[Draw, Clock]:
    """ASTRA's `linear` (Joseph) projector on the CPU, slice by slice, every slice handed over without a copy."""
    _require("astra-toolbox")
    import astra

    slices, rows, columns = mu_per_mm.shape
    if not np.allclose(affine, centred_affine(mu_per_mm.shape)):
        raise NotInstalled("drawn on a centred grid of 1 mm only")
    # ASTRA's y points up while its rows run down: row 0 is the most anterior one.
    volume = np.ascontiguousarray(mu_per_mm[:, ::-1], dtype=np.float32)
    middle = (views[0].shape[1] - 1) / 2
    vectors = [
        [*view.source_mm[:2], *(view.origin_mm[:2] + middle * view.step_u_mm[:2]), *view.step_u_mm[:2]]
        for view in views
    ]
    beams = astra.create_proj_geom("parallel_vec", views[0].shape[1], np.array(vectors))
    grid = astra.create_vol_geom(rows, columns)
    projector = astra.create_projector("linear", beams, grid)
    shadow = np.zeros((slices, len(views), views[0].shape[1]), np.float32)

    def draw() -> ndarray:
        for plane, rows_of_plane in zip(volume, shadow, strict=True):
            numbers = astra.data2d.link("-vol", grid, plane), astra.data2d.link("-sino", beams, rows_of_plane)
            settings = astra.astra_dict("FP")
            settings |= {"ProjectorId": projector, "VolumeDataId": numbers[0], "ProjectionDataId": numbers[1]}
            algorithm = astra.algorithm.create(settings)
            astra.algorithm.run(algorithm)
            astra.algorithm.delete(algorithm)
            astra.data2d.delete(numbers)
        # Row v of our detector is the slice at its height: with 1 mm pixels around the same centre, slices upside down.
        return shadow[::-1].transpose(1, 0, 2)

    return draw, threads_clock(draw)


def _require(package: str) -> None:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise NotInstalled(f"not installed (pip install {package})") from None


def _plastimatch() -> Path | str:
    """The program itself: the wheel's own binary (its wrapper would cost a Python start), else the one on the PATH."""
    spec = importlib.util.find_spec("plastimatch")
    binary = Path(spec.origin).with_name("bin") / "plastimatch" if spec else None
    program = binary if binary and binary.exists() else shutil.which("plastimatch")
    if program is None:
        raise NotInstalled("not installed (pip install plastimatch, or apt install plastimatch)")
    return program


def _write_mha(path: Path, mu_per_mm: Float[ndarray, "z y x"], affine: Float[ndarray, "4 4"]) -> None:
    """A MetaImage file, float32."""
    spacing, offset, size = np.diag(affine)[:3], affine[:3, 3], mu_per_mm.shape[::-1]
    header = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = False",
        "TransformMatrix = 1 0 0 0 1 0 0 0 1",
        f"Offset = {offset[0]} {offset[1]} {offset[2]}",
        f"ElementSpacing = {spacing[0]} {spacing[1]} {spacing[2]}",
        f"DimSize = {size[0]} {size[1]} {size[2]}",
        "ElementType = MET_FLOAT",
        "ElementDataFile = LOCAL\n",
    ]
    path.write_bytes("\n".join(header).encode() + mu_per_mm.astype("<f4").tobytes("C"))


def _read_pfm(path: Path) -> Float[ndarray, "v u"]:
    """A portable float map as plastimatch writes it: little endian, first row on top."""
    _, size, _, pixels = path.read_bytes().split(b"\n", 3)
    columns, rows = map(int, size.split())
    return np.frombuffer(pixels, "<f4").reshape(rows, columns)


def _nanodrr_compiled(mu_per_mm: ndarray, affine: ndarray, views: Sequence[View]) -> tuple[Draw, Clock]:
    return prepare_nanodrr(mu_per_mm, affine, views, compiled=True)


def _plastimatch_program(mu_per_mm: ndarray, affine: ndarray, views: Sequence[View]) -> tuple[Draw, Clock]:
    return prepare_plastimatch(mu_per_mm, affine, views, whole_program=True)


def _diffdrr_trilinear(mu_per_mm: ndarray, affine: ndarray, views: Sequence[View]) -> tuple[Draw, Clock]:
    return prepare_diffdrr(mu_per_mm, affine, views, renderer="trilinear")


def _diffdrr_siddon(mu_per_mm: ndarray, affine: ndarray, views: Sequence[View]) -> tuple[Draw, Clock]:
    return prepare_diffdrr(mu_per_mm, affine, views, renderer="siddon")


RTK = Peer("RTK Joseph", "itk-rtk", "T", prepare_rtk)
PLASTIMATCH = Peer("plastimatch exact", "plastimatch", "S", prepare_plastimatch)
PLASTIMATCH_PROGRAM = Peer("plastimatch exact, whole program", "plastimatch", "S", _plastimatch_program)
NANODRR = Peer(f"nanodrr, {RAY_SAMPLES} samples", "nanodrr", "T", prepare_nanodrr)
NANODRR_COMPILED = Peer(f"nanodrr, {RAY_SAMPLES} samples, compiled", "nanodrr", "T", _nanodrr_compiled)
DIFFDRR = Peer(f"DiffDRR trilinear, {RAY_SAMPLES} samples", "diffdrr", "T", _diffdrr_trilinear)
DIFFDRR_SIDDON = Peer("DiffDRR Siddon", "diffdrr", "S", _diffdrr_siddon)
ASTRA = Peer("ASTRA linear", "astra-toolbox", "T", prepare_astra)
