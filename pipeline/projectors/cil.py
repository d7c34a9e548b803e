"""Parallel beams by the Core Imaging Library (optional, from its conda channels), as SPIDER's experiments use it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from pipeline.errors import UserError
from pipeline.geometry import View
from pipeline.projectors.slices import require_axial_beam, rows_to_detector


def project_cil(
    mu_per_mm: Float[ndarray, "z y x"], affine: Float[ndarray, "4 4"], views: Sequence[View]
) -> Float[ndarray, "view v u"]:
    """Line integrals by CIL's ASTRA plugin on the CPU; slices travel as channels, the only form its CPU path accepts."""
    try:
        from cil.framework import AcquisitionGeometry
        from cil.plugins.astra.operators import ProjectionOperator
    except ImportError as error:
        raise UserError(
            "backend 'cil' needs the Core Imaging Library, which is not installed and is not a pip package. "
            "Create the environment pipeline/envs/cil.yaml with conda, or choose backend 'parallel'."
        ) from error
    return np.stack([_project(mu_per_mm, affine, view, AcquisitionGeometry, ProjectionOperator) for view in views])


def _project(
    mu_per_mm: Float[ndarray, "z y x"], affine: Float[ndarray, "4 4"], view: View, geometry: type, operator: type
) -> Float[ndarray, "v u"]:
    spacing = require_axial_beam(view, affine, "cil")
    slices, rows, columns = mu_per_mm.shape
    centre = affine[:2, :2] @ np.array([(columns - 1) / 2, (rows - 1) / 2]) + affine[:2, 3]
    middle = view.origin_mm[:2] + (view.shape[1] - 1) / 2 * view.step_u_mm[:2]
    pixel_mm = float(np.linalg.norm(view.step_u_mm))
    beam_geometry = (
        geometry.create_Parallel2D(
            ray_direction=list(view.source_mm[:2]),
            detector_position=list(middle - centre),
            detector_direction_x=list(view.step_u_mm[:2] / pixel_mm),
        )
        .set_angles([0.0])
        .set_panel(view.shape[1], pixel_size=pixel_mm)
        .set_channels(slices)
    )
    volume_geometry = beam_geometry.get_ImageGeometry()
    volume_geometry.voxel_num_x, volume_geometry.voxel_num_y = columns, rows
    volume_geometry.voxel_size_x = volume_geometry.voxel_size_y = spacing
    volume = volume_geometry.allocate(0.0)
    volume.fill(mu_per_mm.astype(np.float32))
    project = operator(volume_geometry, beam_geometry, device="cpu")
    shadow = np.asarray(project.direct(volume).as_array(), dtype=np.float64).reshape(slices, view.shape[1])
    return rows_to_detector(shadow, affine, view)
