"""Every simulator's job runs in an environment that has what its projector imports."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from pipeline.projectors import PROJECTORS
from tests.test_environment import DISTRIBUTIONS, ROOT, conda_specs, pip_lines, third_party

BACKENDS = sorted({backend for backends in PROJECTORS.values() for backend in backends} | {"deepdrr"})
HEAVY = {"astra": "cil", "cil": "cil", "deepdrr": "deepdrr"}


def environment_of(backend: str):
    """What the rule answers: all above `rule` in its file is plain Python."""
    code = (ROOT / "pipeline/rules/project.smk").read_text(encoding="utf-8").partition("\nrule ")[0]
    names = {"EXPERIMENT": {"simulators": {"one": {"backend": backend}}}}
    exec(code, names)
    return ROOT / "pipeline/rules" / names["project_environment"](SimpleNamespace(simulator="one"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_environment_has_what_the_projector_imports(backend):
    path = environment_of(backend)
    has = {*conda_specs(path), *(Requirement(line).name.lower() for line in pip_lines(path))}
    imported = third_party(ROOT / f"pipeline/projectors/{backend}.py")
    assert {DISTRIBUTIONS.get(module, module) for module in imported} <= has
    assert path.stem == HEAVY.get(backend, "pipeline")  # nobody waits for an environment that he does not need
