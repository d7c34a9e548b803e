"""Is this affine the geometry of a CT of a person?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from pipeline.errors import CaseError

_SPACING_MM = (0.05, 30.0)
_EXTENT_MM = (30.0, 2500.0)
_SHEAR = 4e-3
"""Largest |N^T N - I| that rounding explains: two decimals in the header give 3.3e-3, a gantry tilt of 0.5 deg 9e-3."""


def check_affine(affine: Float64[ndarray, "4 4"], shape: tuple[int, ...], *, smallest_mm: float = _EXTENT_MM[0]) -> set:
    """Flags of a usable affine (SHEARED or none); `smallest_mm` is the least extent along each axis."""
    if not np.isfinite(affine).all():
        raise CaseError("E_AFFINE_SINGULAR", "the affine holds NaN or infinite numbers, expected finite millimetres")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    found = " x ".join(f"{value:.6g}" for value in spacing)
    if (spacing < _SPACING_MM[0]).any() or (spacing > _SPACING_MM[1]).any():
        raise CaseError(
            "E_SPACING", f"the voxels measure {found} mm, expected {_SPACING_MM[0]:g} to {_SPACING_MM[1]:g} mm each way"
        )
    unit = affine[:3, :3] / spacing
    if abs(np.linalg.det(unit)) < 0.1:
        raise CaseError(
            "E_AFFINE_SINGULAR", "the affine's axes lie in one plane, expected three independent directions"
        )
    extent = spacing * shape
    if (extent < smallest_mm).any() or (extent > _EXTENT_MM[1]).any():
        found = " x ".join(f"{value:.4g}" for value in extent)
        raise CaseError(
            "E_EXTENT", f"the volume measures {found} mm, expected {smallest_mm:g} to {_EXTENT_MM[1]:g} mm each way"
        )
    return {"SHEARED"} if np.abs(unit.T @ unit - np.eye(3)).max() > _SHEAR else set()
