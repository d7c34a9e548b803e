"""X-ray simulators by name: each projects a volume of attenuation into one view."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from numpy import ndarray

from pipeline.errors import UserError
from pipeline.geometry import View
from pipeline.projectors.astra import project_astra
from pipeline.projectors.axis_sum import project_axis_sum
from pipeline.projectors.cil import project_cil
from pipeline.projectors.trilinear import project_trilinear

Projector = Callable[[ndarray, ndarray, View], ndarray]
"""(mu_per_mm (z, y, x), affine (4, 4) index (x, y, z, 1) -> RAS mm, view) -> line integrals (v, u), dimensionless."""

PROJECTORS: dict[str, dict[str, Projector]] = {
    "parallel": {"numpy": project_axis_sum, "trilinear": project_trilinear, "astra": project_astra, "cil": project_cil},
    "cone": {"trilinear": project_trilinear},
}


def get_projector(beam: str, backend: str) -> Projector:
    """The projector for a beam and backend; an unknown backend is an error that lists the known ones."""
    backends = PROJECTORS[beam]
    if backend not in backends:
        nearest = get_close_matches(backend, backends, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise UserError(
            f"backend {backend!r} cannot simulate a {beam} beam; expected one of: {', '.join(backends)}.{hint}"
        )
    return backends[backend]
