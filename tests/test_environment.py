"""The conda files, checked offline: every line parses, no dependency is forgotten, every import has its environment."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from rattler import MatchSpec

ROOT = Path(__file__).parents[1]
WHOLE = ROOT / "environment.yml"
FILES = [WHOLE, *sorted((ROOT / "pipeline" / "envs").glob("*.yaml"))]
CHANNELS = {"conda-forge", "bioconda", "ccpi", "intel", "nodefaults"}
GIT_URLS = {"git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch"}
CONDA_NAMES = {"torch": "pytorch"}
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "nrrd": "pynrrd",
    "PIL": "pillow",
    "torch": "pytorch",
    "astra": "astra-toolbox",
    "skimage": "scikit-image",
    "idc_index": "idc-index",
    "triton": "pytorch",  # comes with its builds for CUDA
    "batchgeneratorsv2": "nnunetv2",  # comes with it
}
ELSEWHERE = {
    "astra": "cil",
    "cil": "cil",
    "totalsegmentator": "totalsegmentator",
    "deepdrr": "deepdrr",
    "spekpy": "pipeline",
    "idc_index": "idc",
    "nnunetv2": "judge",
    "batchgeneratorsv2": "judge",
}
"""Optional imports and the environment that has them."""


def conda_specs(path: Path) -> dict[str, MatchSpec]:
    lines = [line for line in yaml.safe_load(path.read_text())["dependencies"] if isinstance(line, str)]
    specs = [MatchSpec(line, strict=True) for line in lines]
    assert len({spec.name.normalized for spec in specs}) == len(lines), "a package is listed twice"
    return {spec.name.normalized: spec for spec in specs}


def pip_lines(path: Path, *, commented: bool = False) -> list[str]:
    (section,) = [
        line["pip"] for line in yaml.safe_load(path.read_text())["dependencies"] if isinstance(line, dict)
    ] or [[]]
    return section + (re.findall(r"^ {6}# - (\S+)$", path.read_text(), re.MULTILINE) if commented else [])


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def bounds(text: str) -> set[str]:
    return set(text.replace(" ", "").split(",")) - {""}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_line_parses_and_names_its_channel(path):
    content = yaml.safe_load(path.read_text())
    channels = content["channels"]
    assert channels[0] == "conda-forge" and channels[-1] == "nodefaults" and set(channels) <= CHANNELS
    assert set(content) <= {"name", "channels", "dependencies"}
    specs = conda_specs(path)
    assert str(specs["python"].version) == "3.11.*"
    for spec in specs.values():
        assert spec.channel is None or spec.channel.name in channels, spec
    for line in pip_lines(path, commented=True):
        assert line in GIT_URLS or Requirement(line)
    assert "pip" in specs or not pip_lines(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_host_is_named_but_the_one_that_has_to_be(path):
    text = path.read_text()
    for url in GIT_URLS:
        text = text.replace(url, "")
    assert "://" not in text and not re.search(r"\b[\w-]+\.(com|org|io|net)\b", text)


@pytest.mark.parametrize("extra", ["", "test", "astra", "slurm"])
def test_every_dependency_of_the_package_is_in_the_whole_environment(extra):
    specs = conda_specs(WHOLE)
    lines = project()["optional-dependencies"][extra] if extra else project()["dependencies"]
    for requirement in map(Requirement, lines):
        conda = CONDA_NAMES.get(requirement.name.lower(), requirement.name.lower())
        assert conda in specs, f"{requirement.name} is missing in environment.yml"
        assert bounds(str(specs[conda].version)) == bounds(str(requirement.specifier)), requirement.name


def test_pip_extras_have_the_same_bounds_everywhere():
    wanted = project()["optional-dependencies"]["totalsegmentator"]
    assert [str(Requirement(line)) for line in pip_lines(WHOLE)] == [str(Requirement(line)) for line in wanted]
    assert pip_lines(ROOT / "pipeline" / "envs" / "totalsegmentator.yaml") == pip_lines(WHOLE)
    judges = [*wanted, *project()["optional-dependencies"]["nnunet"]]
    judge = pip_lines(ROOT / "pipeline" / "envs" / "judge.yaml")
    assert [str(Requirement(line)) for line in judge] == [str(Requirement(line)) for line in judges]


def test_small_environments_keep_the_bounds_of_the_whole_one():
    whole = conda_specs(WHOLE)
    for path in FILES[1:]:
        for package, spec in conda_specs(path).items():
            if (path.name, package) == ("deepdrr.yaml", "numpy"):
                continue  # DeepDRR declares numpy < 2
            if package in whole and whole[package].version is not None:
                lost = bounds(str(whole[package].version)) - bounds(str(spec.version))
                assert not lost, f"{path.name}: {package} lacks {lost}"


@pytest.mark.parametrize("package, environment", [("pipeline", "pipeline"), ("xr2ct", "xr2ct")])
def test_every_import_has_its_environment(package, environment):
    own = conda_specs(ROOT / "pipeline" / "envs" / f"{environment}.yaml")
    for path in (ROOT / package).rglob("*.py"):
        for module in third_party(path):
            if module in ELSEWHERE:
                other = ROOT / "pipeline" / "envs" / f"{ELSEWHERE[module]}.yaml"
                has = {*conda_specs(other), *(Requirement(line).name.lower() for line in pip_lines(other))}
                assert DISTRIBUTIONS.get(module, module) in has
            else:
                assert DISTRIBUTIONS.get(module, module) in own, f"{path.name} imports {module}"


def third_party(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"pipeline", "xr2ct"}


@pytest.mark.parametrize("environment", ["cil", "totalsegmentator", "deepdrr", "idc"])
def test_backends_of_the_pipeline_can_run_the_pipeline(environment):
    """Their rules run `python -m pipeline`, so all of pipeline.yaml has to be there too."""
    assert set(conda_specs(ROOT / "pipeline" / "envs" / "pipeline.yaml")) - {"pip"} <= set(
        conda_specs(ROOT / "pipeline" / "envs" / f"{environment}.yaml")
    )


def test_the_judge_can_run_the_rest_of_its_package():
    assert set(conda_specs(ROOT / "pipeline" / "envs" / "xr2ct.yaml")) <= set(
        conda_specs(ROOT / "pipeline" / "envs" / "judge.yaml")
    )


def test_rules_name_environments_that_exist():
    rules = "".join(path.read_text() for path in (ROOT / "pipeline" / "rules").glob("*.smk"))
    named = set(re.findall(r'"\.\./envs/([\w.]+)"', rules))
    assert named and named <= {path.name for path in FILES}
