"""config.yaml: every mistake is named, every default described, every key used."""

import copy
import re
from pathlib import Path

import pytest
import yaml

from pipeline.config import check_config, leaves, structures_to_label
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
    assert config["labels"] == {"missing": "none", "only_wanted": True, "device": "cpu", "batch": 16}
    assert config["region"] == {"kind": "cube"}
    assert config["runs"]["mean"]["settings"] == {}
    assert "labels" not in DEMO
    assert config["legacy"] is False and config["judge"] == []


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
        (changed("simulators", "cone", "views", value=["PA", "PA"]), r"simulators.cone: views names a view twice"),
        (
            changed("simulators", "cone", "views", value=[{"name": "a", "alfa_deg": 3}]),
            r"key 'alfa_deg' at simulators.cone.views.0 .* nearest valid key is 'alpha_deg'",
        ),
        (
            changed("simulators", "cone", "views", value=[{"name": "a", "alpha_deg": "30"}]),
            r"views.0.alpha_deg is '30'; expected a value of type number or a list .* Turn about the patient's",
        ),
        (
            changed("simulators", "cone", "views", value=[3]),
            r"views.0 is 3; expected a value of type string or a mapping",
        ),
        (
            changed("simulators", "cone", "views", value=[{"name": "a", "alpha_deg": {"unifrm": [1, 2]}}]),
            r"key 'unifrm' at simulators.cone.views.0.alpha_deg .* nearest valid key is 'uniform'",
        ),
        (changed("simulators", "cone", "photons", value=-1), r"simulators.cone.photons is -1; expected minimum 0"),
        (changed("simulators", "cone", "grid", value="r9"), r"simulators.cone.grid is 'r9'; expected one of: none, r8"),
        (
            changed("simulators", "cone", "roll_deg", value="9"),
            r"simulators.cone.roll_deg is '9'; expected a value of type number",
        ),
        (changed("simulators", "cone", "backend", value="numpy"), r"'numpy' cannot simulate a cone beam"),
        (changed("simulators", "cone", "sdd_mm", value=5), r"simulators.cone: sod_mm 1500 and sdd_mm 5 put"),
        (changed("grid", "spacing_mm", value=float("inf")), r"grid.spacing_mm is inf; expected a finite number"),
        (
            changed("simulators", "cone", "pixel_mm", value=10**400),
            r"simulators.cone.pixel_mm is 1000+; expected a finite",
        ),
        (
            changed("simulators", "cone", "views", value=[{"name": "a", "alpha_deg": [10**400]}]),
            r"simulators.cone.views.0.alpha_deg.0 is 1000+; expected a finite",
        ),
        (
            changed("seed", value=2**63),
            r"seed is 9223372036854775808; expected a finite number, a whole one below 2\^63",
        ),
        (changed("runs", "spider", "seeds", value=[1, 2**63]), r"runs.spider.seeds.1 is 9223372036854775808; expected"),
        (
            changed("runs", "spider", "settings", value={"learning_rate": float("nan")}),
            r"runs.spider.settings.learning_rate is nan; expected a finite number",
        ),
        (
            changed("runs", "spider", "settings", value={"preset": "default", "stepps": 4}),
            r"key 'stepps' at runs.spider.settings is not known; the nearest valid key is 'steps'. Valid keys there: preset, ",
        ),
        (changed("tables", value={1: ["mean"]}), r"key 1 at tables is no text; expected a name. Write it in quotes"),
        (changed("runs", True, value=DEMO["runs"]["mean"]), r"key True at runs is no text"),
        (changed("window_hu", value=[500, -1000]), r"window_hu is \[500, -1000\]; expected the lower bound first"),
        (changed("cohort", 0, "source", value="folder"), r"cohort.0 has no 'dataset'; source 'folder' needs it"),
        (changed("legacy", value="psnr_x2ct4095"), r"legacy is 'psnr_x2ct4095'; expected a value of type boolean"),
        (
            changed("judge", value="nnunet"),
            r"judge is 'nnunet'; expected a mapping \(lines of 'key: value'\) or a list",
        ),
        (changed("judge", value=[{"kind": "nnUNet"}]), r"judge.0.kind is 'nnUNet'; expected one of: none, nnunet"),
        (
            changed("judge", value=[{"knd": "nnunet"}]),
            r"key 'knd' at judge.0 is not known; the nearest valid key is 'kind'",
        ),
        (
            changed("judge", value=[{"kind": "nnunet", "size": "small"}, {"kind": "nnunet", "size": "stock"}]),
            r"judge has kind 'nnunet' twice; expected every kind once. Remove one",
        ),
        (changed("region", value={"kind": "body"}), r"region.kind is 'body'; expected one of: cube, structures, spine"),
        (changed("region", value={"kind": "vertebra"}), r"region of kind 'vertebra' has no 'vertebrae'"),
        (changed("region", value={"kind": "structures"}), r"region of kind 'structures' has no 'structures'"),
        (
            changed("region", value={"kind": "spine", "vertebrae": ["L1"]}),
            r"region of kind 'spine' does not know 'vertebrae', which belongs to kind 'vertebra'",
        ),
        (
            changed("region", value={"kind": "vertebra", "vertebrae": ["L1", "L7"]}),
            r"region.vertebrae.1 is 'L7'; expected pattern",
        ),
        (
            changed("region", value={"kind": "structures", "structures": ["kidny"]}),
            r"structure 'kidny' is not known.*Did you mean kidney",
        ),
        (
            changed("structures", value=["liver", "vertebrae", "vertebra_L2"]),
            r"structures vertebrae and vertebra_L2 both hold vertebrae_L2",
        ),
        (
            changed("structures", value=["vertebra_L6", "vertebrae"]),
            r"structures vertebra_L6 and vertebrae both hold vertebrae_L6",
        ),
        (
            {**changed("structures", value=["maxilla"]), "labels": {"missing": "totalsegmentator"}},
            r"label scheme knows none of the structures maxilla.*Set labels.missing to none",
        ),
        ({key: value for key, value in DEMO.items() if key != "grid"}, r"'grid' is a required property. Add it"),
        (changed("simulators", "a;b", value={"beam": "cone"}), r"config: simulators is"),
    ],
)
def test_mistakes_are_named(config, words):
    with pytest.raises(UserError, match=words):
        check_config(config)


@pytest.mark.parametrize(
    ("judge", "judges"),
    [
        ({}, []),
        ({"kind": "none"}, []),
        ({"kind": "nnunet", "size": "stock"}, [{"kind": "nnunet", "size": "stock"}]),
        ([{"kind": "totalsegmentator"}], [{"kind": "totalsegmentator", "size": "small"}]),
        ([{"kind": "none"}, {"kind": "nnunet"}], [{"kind": "nnunet", "size": "small"}]),
    ],
)
def test_one_judge_or_several_become_a_list(judge, judges):
    assert check_config(DEMO | {"judge": judge})["judge"] == judges


@pytest.mark.parametrize(
    ("region", "more"),
    [
        ({}, []),
        ({"kind": "structures", "structures": ["kidney", "aorta"]}, ["kidney"]),
        ({"kind": "spine"}, ["vertebrae"]),
        ({"kind": "vertebra", "vertebrae": ["L1"]}, ["vertebrae"]),
    ],
)
def test_a_labeller_is_asked_for_the_structures_and_for_what_the_region_follows(region, more):
    config = check_config(changed("structures", value=["liver", "aorta"]) | {"region": region})
    assert structures_to_label(config) == ["liver", "aorta", *more]


@pytest.mark.parametrize("path", sorted(ROOT.glob("resources/configs/*.yaml")), ids=lambda path: path.stem)
def test_the_examples_are_valid(path):
    assert check_config(yaml.safe_load(path.read_text(encoding="utf-8")))["name"]


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
        for path in [
            ROOT / "Snakefile",
            *ROOT.glob("pipeline/rules/*.smk"),
            *ROOT.glob("pipeline/*.py"),
            *ROOT.glob("pipeline/sources/*.py"),
        ]
        if path.name != "config.py"
    )
    # Blocks that are handed on whole: their keys become options of the command or fields of its dataclass.
    whole = {"deformation": "pipeline/deform.py", "simulators": "pipeline/simulators.py"}
    for path, _ in leaves():
        key = next(part for part in reversed(path) if part not in ("[]", "*") and not part.startswith("("))
        text = (ROOT / whole[path[0]]).read_text() if path[0] in whole else code
        of_a_view = path[0] == "simulators" and key in ("name", "alpha_deg", "beta_deg", "uniform")
        if of_a_view:
            text = (ROOT / "pipeline/geometry.py").read_text() + (ROOT / "pipeline/sweeps.py").read_text()
        pattern = rf"\b{key}:" if path[0] in whole and not of_a_view else rf"[\"']{key}[\"']"
        assert re.search(pattern, text), f"config key {'.'.join(path)} is described but never used"
