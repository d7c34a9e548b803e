"""config.yaml: every mistake is named, every default described, every key used."""

import copy
import re
from pathlib import Path

import pytest
import yaml

from pipeline.config import check_config, leaves
from pipeline.errors import UserError

ROOT = Path(__file__).parents[2]
DEMO = yaml.safe_load((ROOT / "config.yaml").read_text())


def changed(*path, value):
    config = copy.deepcopy(DEMO)
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return config


def test_the_demo_config_is_valid_and_gets_its_defaults():
    config = check_config(DEMO)
    assert config["deformation"]["max_displacement_mm"] == 12
    assert config["labels"] == {"missing": "none", "device": "cpu"}
    assert config["runs"]["mean"]["settings"] == {}
    assert "labels" not in DEMO


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (changed("sede", value=3), r"key 'sede' at the top level is not known; the nearest valid key is 'seed'"),
        (changed("grid", "spacing", value=3), r"key 'spacing' at grid .* nearest valid key is 'spacing_mm'"),
        (changed("simulators", "cone", "sid_mm", value=3), r"'sid_mm' at simulators.cone .* 'sdd_mm'|'sod_mm'"),
        (changed("derive", 0, "famly", value=3), r"'famly' at derive.0 .* 'family'"),
        (
            changed("grid", "shape", value="128"),
            r"grid.shape is '128'; expected a value of type integer. Voxels per side",
        ),
        (changed("grid", "spacing_mm", value=-1), r"grid.spacing_mm is -1; expected exclusiveMinimum 0"),
        (
            changed("runs", "spider", "simulator", value="conic"),
            r"runs.spider.simulator is 'conic'; expected .*parallel",
        ),
        (changed("runs", "spider", "model", value="spyder"), r"runs.spider.model is 'spyder'; expected one of: mean"),
        (changed("simulators", "cone", "views", value=["PA", "XX"]), r"view 'XX' is not known; expected one of: PA"),
        (changed("simulators", "cone", "views", value=["PA", "PA"]), r"simulators.cone.views names a view twice"),
        (changed("simulators", "cone", "backend", value="numpy"), r"'numpy' cannot simulate a cone beam"),
        (changed("simulators", "cone", "sdd_mm", value=5), r"simulators.cone has sod_mm 1500 and sdd_mm 5"),
        (changed("grid", "spacing_mm", value=float("inf")), r"a number is NaN or infinite"),
        (changed("window_hu", value=[500, -1000]), r"window_hu is \[500, -1000\]; expected the lower bound first"),
        (changed("cohort", 0, "source", value="folder"), r"cohort.0 has no 'csv'; source 'folder' needs it"),
        ({key: value for key, value in DEMO.items() if key != "grid"}, r"'grid' is a required property. Add it"),
        (changed("simulators", "a;b", value={"beam": "cone"}), r"config: simulators is"),
    ],
)
def test_mistakes_are_named(config, words):
    with pytest.raises(UserError, match=words):
        check_config(config)


def test_every_key_has_a_description_and_lengths_have_units():
    for path, rules in leaves():
        if path[-1] in ("[]", "*") or path[-1].startswith("("):
            continue
        assert len(rules.get("description", "")) > 10, path
        for suffix, unit in (("_mm", "mm"), ("_hu", "HU"), ("_kev", "keV"), ("_deg", "degrees")):
            assert not path[-1].endswith(suffix) or unit in rules["description"], path


def test_every_key_is_used_by_the_workflow():
    code = "\n".join(
        path.read_text()
        for path in [ROOT / "Snakefile", *ROOT.glob("pipeline/rules/*.smk"), *ROOT.glob("pipeline/*.py")]
        if path.name != "config.py"
    )
    # Blocks that are handed on whole: their keys become options of the command or fields of its dataclass.
    whole = {"deformation": "pipeline/deform.py", "simulators": "pipeline/project.py"}
    for path, _ in leaves():
        key = next(part for part in reversed(path) if part not in ("[]", "*") and not part.startswith("("))
        text = (ROOT / whole[path[0]]).read_text() if path[0] in whole else code
        if path[0] == "simulators" and key in ("name", "alpha_deg", "beta_deg"):
            text = (ROOT / "pipeline/geometry.py").read_text()
        pattern = (
            rf"\b{key}:" if path[0] in whole and key not in ("name", "alpha_deg", "beta_deg") else rf"[\"']{key}[\"']"
        )
        assert re.search(pattern, text), f"config key {'.'.join(path)} is described but never used"
