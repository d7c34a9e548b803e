"""One CT without a workflow: read on its own grid, X-rayed on a detector that its shadow fits on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int16
from numpy import ndarray

from pipeline.errors import CaseError, UserError
from pipeline.geometry import centre_mm, corners_mm
from pipeline.simulators import Simulator, make_simulator, stand_views
from pipeline.sweeps import draw_angles, require_no_sweep

DETECTOR_PX = (256, 256)
_REACH_VOXELS = 1.0
"""How far beyond the outermost voxel centres an interpolated volume reaches until it is 0."""
_LARGEST_PX = 8192


def load_ct(
    path: Path, say: Callable[[str], None] = lambda text: None
) -> tuple[Int16[ndarray, "z y x"], Float64[ndarray, "4 4"]]:
    """A CT of any format that `pipeline.read` knows, never resampled: axes only turned closest to R, A, S.

    HU are rounded and cut to -1024..3071, the range that simulators know. Voxels that are no numbers are refused: a
    workflow sees many cases and counts them, here is one CT and someone who can mend it. What else is noticed is said.
    """
    from pipeline.flags import FLAG_MEANINGS
    from pipeline.read import read_volume
    from pipeline.resample import HU_RANGE, to_closest_ras

    say(f"reading {path}")
    try:
        volume = read_volume(path)
    except CaseError as error:
        raise UserError(
            f"{path}: {error.reason} ({error.code}). "
            "Give a CT in HU: NIfTI, NRRD, MetaImage or a folder with one DICOM series."
        ) from None
    if "NONFINITE_FIXED" in volume.flags:
        raise UserError(
            f"{path}: voxels that are NaN or infinite (E_NONFINITE); expected finite HU. Replace them, for example by -1024."
        )
    for flag in volume.flags:
        say(f"noticed: {flag} ({FLAG_MEANINGS[flag]})")
    data, affine = to_closest_ras(volume.data, volume.affine)
    ct_hu = np.rint(np.clip(data.T, *HU_RANGE)) if data.dtype.kind == "f" else np.clip(data.T, *HU_RANGE)
    return np.ascontiguousarray(ct_hu, dtype=np.int16), affine


def case_name(ct_hu: Int16[ndarray, "z y x"], affine: Float64[ndarray, "4 4"]) -> str:
    """What seeds the random parts of a lone CT: its content, wherever its file lies."""
    return f"ct-{hashlib.sha256(np.ascontiguousarray(ct_hu).tobytes() + affine.tobytes()).hexdigest()[:16]}"


def fit_detector(
    values: dict, shape: tuple[int, int, int], affine: Float64[ndarray, "4 4"], *, case: str, seed: int
) -> Simulator:
    """The simulator of `values`, of which detector_px and pixel_mm may be missing.

    Without pixel_mm the pixels become as large as the whole volume's shadow needs in every view (on 256 x 256 unless
    detector_px says otherwise); without detector_px alone, as many pixels of that size are taken as it needs. The shadow
    then ends at the centres of the outermost pixels.
    """
    require_no_sweep(values["views"])
    if "detector_px" in values and "pixel_mm" in values:
        return make_simulator(values)
    whole = make_simulator({"detector_px": DETECTOR_PX, "pixel_mm": 1.0, **values})
    half_u, half_v = _half_shadow_mm(draw_angles(whole, case=case, seed=seed), shape, affine)
    if "pixel_mm" in values:
        rows, columns = (math.ceil(2 * half / whole.pixel_mm) + 1 for half in (half_v, half_u))
        if max(rows, columns) > _LARGEST_PX:
            raise UserError(
                f"pixel_mm {whole.pixel_mm:g} needs a detector of {rows} x {columns} pixels to hold the volume's shadow; "
                f"expected at most {_LARGEST_PX}. Increase pixel_mm, or give detector_px."
            )
        return make_simulator({**values, "detector_px": (rows, columns)})
    rows, columns = whole.detector_px
    pixel_mm = max(2 * half_v / max(rows - 1, 1), 2 * half_u / max(columns - 1, 1))
    return make_simulator({**values, "detector_px": whole.detector_px, "pixel_mm": math.ceil(pixel_mm * 100) / 100})


def _half_shadow_mm(simulator: Simulator, shape: tuple[int, int, int], affine: ndarray) -> tuple[float, float]:
    """Farthest point of the volume's shadow from the detector's centre, over all views: along u, along v."""
    corners = np.column_stack([corners_mm(shape, affine, beyond=_REACH_VOXELS), np.ones(8)])
    reach = np.zeros(2)
    for placed in stand_views(replace(simulator, detector_px=(1, 1), pixel_mm=1.0), centre_mm(shape, affine)):
        shadow = corners @ placed.projection().T
        if (shadow[:, 2] <= 0).any():
            raise UserError(
                f"view {placed.name}: the tube stands inside or in front of the volume. Increase sod_mm beyond half the "
                "volume's diagonal."
            )
        reach = np.maximum(reach, np.abs(shadow[:, :2] / shadow[:, 2:]).max(axis=0))
    return float(reach[0]), float(reach[1])
