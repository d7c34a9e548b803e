"""X-ray projectors by name: each turns a volume of attenuation into line integrals for a list of views."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from numpy import ndarray

from pipeline.errors import unknown
from pipeline.geometry import View
from pipeline.projectors.astra import project_astra
from pipeline.projectors.cil import project_cil
from pipeline.projectors.joseph import project_joseph
from pipeline.projectors.parallel import project_parallel
from pipeline.projectors.reference import project_reference
from pipeline.projectors.siddon import project_siddon

Projector = Callable[[ndarray, ndarray, Sequence[View]], ndarray]
"""(mu_per_mm (z, y, x), affine (4, 4) index (x, y, z, 1) -> RAS mm, views of one detector shape) -> (view, v, u)."""

PROJECTORS: dict[str, dict[str, Projector]] = {
    "parallel": {
        "parallel": project_parallel,
        "joseph": project_joseph,
        "siddon": project_siddon,
        "reference": project_reference,
        "astra": project_astra,
        "cil": project_cil,
    },
    "cone": {"joseph": project_joseph, "siddon": project_siddon, "reference": project_reference},
}


def get_projector(beam: str, backend: str) -> Projector:
    """The projector for a beam and backend; an unknown backend is an error that lists the known ones."""
    backends = PROJECTORS[beam]
    if backend not in backends:
        raise unknown(f"backend {backend!r} cannot simulate a {beam} beam", backend, backends, " Choose one of them.")
    return backends[backend]
