"""What the two slice-by-slice backends share: which beams they can do, and the resampling of rows onto the detector."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.ndimage import map_coordinates

from pipeline.errors import UserError
from pipeline.geometry import View


def require_axial_beam(view: View, affine: Float[ndarray, "4 4"], backend: str) -> float:
    """Spacing in mm of an isotropic, axis-aligned grid whose slices the beam never leaves; anything else is refused."""
    spacing = affine[0, 0]
    aligned = np.allclose(affine[:3, :3], spacing * np.eye(3), atol=1e-9) and spacing > 0
    in_plane = view.source_mm[3] == 0 and view.source_mm[2] == 0 and view.step_u_mm[2] == 0
    if not (aligned and in_plane):
        raise UserError(
            f"view {view.name}: backend {backend!r} projects slice by slice; expected a parallel beam with beta_deg 0 and "
            "an isotropic grid along R, A, S. Use backend 'parallel' for this view."
        )
    return float(spacing)


def rows_to_detector(shadow: Float[ndarray, "z u"], affine: Float[ndarray, "4 4"], view: View) -> Float[ndarray, "v u"]:
    """Interpolate one row per slice at the heights of the detector's rows (0 outside the volume)."""
    height_mm = view.origin_mm[2] + np.arange(view.shape[0]) * view.step_v_mm[2]
    v, u = np.meshgrid((height_mm - affine[2, 3]) / affine[2, 2], np.arange(view.shape[1]), indexing="ij")
    return map_coordinates(shadow, [v, u], order=1, mode="grid-constant", cval=0.0)
