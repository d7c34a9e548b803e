"""Parallel beams along a grid axis: the line integral of the interpolated volume is the sum of its slices."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.ndimage import map_coordinates

from pipeline.geometry import View
from pipeline.projectors.trilinear import project_trilinear


def project_axis_sum(
    mu_per_mm: Float[ndarray, "z y x"], affine: Float[ndarray, "4 4"], view: View
) -> Float[ndarray, "v u"]:
    """Exact line integrals where the beam runs along a grid axis, bilinear across it; other angles march the rays."""
    to_index = np.linalg.inv(affine)
    beam_index = to_index[:3, :3] @ view.source_mm[:3]
    along = int(np.argmax(np.abs(beam_index)))
    across = [axis for axis in range(3) if axis != along]
    if np.abs(beam_index[across]).max() > 1e-9 * np.abs(beam_index[along]):
        return project_trilinear(mu_per_mm, affine, view)

    shadow = mu_per_mm.sum(axis=2 - along) / np.abs(beam_index[along])
    pixel_mm, _ = view.rays()
    pixel_index = pixel_mm @ to_index[:3, :3].T + to_index[:3, 3]
    rows_columns = [pixel_index[..., axis] for axis in reversed(across)]
    return map_coordinates(shadow, rows_columns, order=1, mode="grid-constant", cval=0.0)
