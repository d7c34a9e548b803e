"""Parallel beams by the ASTRA toolbox on the CPU (optional, GPL-3.0: imported when asked for, never required)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from pipeline.errors import UserError
from pipeline.geometry import View
from pipeline.projectors.slices import require_axial_beam, rows_to_detector


def project_astra(
    mu_per_mm: Float[ndarray, "z y x"], affine: Float[ndarray, "4 4"], views: Sequence[View]
) -> Float[ndarray, "view v u"]:
    """Line integrals by ASTRA's 2-D `linear` projector (Joseph), slice by slice, all views of a slice at once."""
    try:
        import astra
    except ImportError as error:
        raise UserError(
            "backend 'astra' needs the package astra-toolbox, which is not installed. "
            "Run: pip install 'xr2ct[astra]'   or choose backend 'parallel'."
        ) from error
    spacing = [require_axial_beam(view, affine, "astra") for view in views][-1]
    slices, rows, columns = mu_per_mm.shape
    centre = affine[:2, :2] @ np.array([(columns - 1) / 2, (rows - 1) / 2]) + affine[:2, 3]
    width = views[0].shape[1]
    # ASTRA's slices have y upwards and rows downwards, so row 0 of its image is the most anterior one.
    volume_geometry = astra.create_vol_geom(
        rows, columns, -columns / 2 * spacing, columns / 2 * spacing, -rows / 2 * spacing, rows / 2 * spacing
    )
    vectors = [
        [
            *view.source_mm[:2],
            *(view.origin_mm[:2] + (width - 1) / 2 * view.step_u_mm[:2] - centre),
            *view.step_u_mm[:2],
        ]
        for view in views
    ]
    beam_geometry = astra.create_proj_geom("parallel_vec", width, np.array(vectors))
    projector = astra.create_projector("linear", beam_geometry, volume_geometry)
    shadows = np.empty((len(views), slices, width))
    try:
        for z, plane in enumerate(mu_per_mm):
            number, rows_of_views = astra.create_sino(np.ascontiguousarray(plane[::-1], dtype=np.float32), projector)
            shadows[:, z] = rows_of_views
            astra.data2d.delete(number)
    finally:
        astra.projector.delete(projector)
    return np.stack([rows_to_detector(shadow, affine, view) for shadow, view in zip(shadows, views, strict=True)])
