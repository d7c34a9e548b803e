"""Parallel beams by the ASTRA toolbox on the CPU (optional, GPL-3.0: imported when asked for, never required)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from pipeline.errors import UserError
from pipeline.geometry import View
from pipeline.projectors.slices import require_axial_beam, rows_to_detector


def project_astra(
    mu_per_mm: Float[ndarray, "z y x"], affine: Float[ndarray, "4 4"], view: View
) -> Float[ndarray, "v u"]:
    """Line integrals by ASTRA's 2-D `linear` projector (Joseph), slice by slice."""
    try:
        import astra
    except ImportError as error:
        raise UserError(
            "backend 'astra' needs the package astra-toolbox, which is not installed. "
            "Run: pip install astra-toolbox   or choose backend 'numpy'."
        ) from error
    spacing = require_axial_beam(view, affine, "astra")
    _, rows, columns = mu_per_mm.shape
    centre = affine[:2, :2] @ np.array([(columns - 1) / 2, (rows - 1) / 2]) + affine[:2, 3]
    middle = view.origin_mm[:2] + (view.shape[1] - 1) / 2 * view.step_u_mm[:2]
    # ASTRA's slices have y upwards and rows downwards, so row 0 of its image is the most anterior one.
    volume_geometry = astra.create_vol_geom(
        rows, columns, -columns / 2 * spacing, columns / 2 * spacing, -rows / 2 * spacing, rows / 2 * spacing
    )
    vectors = np.concatenate([view.source_mm[:2], middle - centre, view.step_u_mm[:2]])[None]
    beam_geometry = astra.create_proj_geom("parallel_vec", view.shape[1], vectors)
    projector = astra.create_projector("linear", beam_geometry, volume_geometry)
    shadow = np.empty((len(mu_per_mm), view.shape[1]))
    try:
        for z, plane in enumerate(mu_per_mm):
            number, row = astra.create_sino(np.ascontiguousarray(plane[::-1], dtype=np.float32), projector)
            shadow[z] = row[0]
            astra.data2d.delete(number)
    finally:
        astra.projector.delete(projector)
    return rows_to_detector(shadow, affine, view)
