"""Sweeps and random angles: names one can foresee, draws that do not depend on who is asked first."""

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.config import check_config
from pipeline.errors import UserError
from pipeline.geometry import make_view
from pipeline.project import simulate
from pipeline.simulators import Simulator
from pipeline.sweeps import angle_name, draw_angles, expand_simulators, require_no_sweep
from tests.cohorts import ROOT, good_rows, jobs, run, write_cohort

LATERAL = {"name": "lateral", "alpha_deg": 90, "beta_deg": 0}
EXAMPLE = ROOT / "resources/configs/ear_sweep.yaml"


def swept(*angles, key="alpha_deg", **more):
    first = {"name": "first", "alpha_deg": 0, "beta_deg": 0, key: list(angles)}
    return {"ear": {"beam": "cone", "views": [first, LATERAL], **more}}


@pytest.mark.parametrize(
    ("angle", "name"),
    [(30, "030"), (-50, "m050"), (0, "000"), (-0.0, "000"), (7.5, "007p5"), (-0.25, "m000p25"), (110.0, "110")],
)
def test_an_angle_ends_a_name(angle, name):
    assert angle_name(angle) == name


def test_one_list_becomes_one_simulator_per_value_and_the_rest_stays():
    simulators = {"plain": {"beam": "parallel", "views": ["PA"]}, **swept(30, -50, 7.5, sdd_mm=900)}
    before = copy.deepcopy(simulators)
    expanded = expand_simulators(simulators)
    assert list(expanded) == ["plain", "ear_030", "ear_m050", "ear_007p5"]
    assert expanded["plain"] == simulators["plain"]
    assert expanded["ear_m050"] == {
        "beam": "cone",
        "views": [{"name": "first", "alpha_deg": -50, "beta_deg": 0}, LATERAL],
        "sdd_mm": 900,
    }
    assert expanded["ear_030"]["views"][0]["alpha_deg"] == 30
    assert simulators == before


def test_beta_sweeps_too():
    expanded = expand_simulators(swept(10, 20, key="beta_deg"))
    assert [values["views"][0]["beta_deg"] for values in expanded.values()] == [10, 20]
    assert list(expanded) == ["ear_010", "ear_020"]


@pytest.mark.parametrize(
    ("simulators", "words"),
    [
        (swept(30, 30.0), "simulators.ear expands to 'ear_030', which exists already"),
        ({**swept(30), "ear_030": {"views": ["PA"]}}, "expands to 'ear_030', which exists already"),
        ({"ear_030": {"views": ["PA"]}, **swept(30)}, "expands to 'ear_030', which exists already"),
        (
            {"a": {"views": [{"name": "x", "alpha_deg": [1, 2]}, {"name": "y", "alpha_deg": [1, 2]}]}},
            "simulators.a.views holds 2 lists of angles; expected at most one",
        ),
        ({"a": {"views": [{"name": "x", "alpha_deg": [1], "beta_deg": [2]}]}}, "holds 2 lists of angles"),
        ({"a" * 30: swept(30)["ear"]}, "expected at most 32 lower-case letters"),
    ],
)
def test_a_sweep_that_cannot_be_named_is_refused(simulators, words):
    with pytest.raises(UserError, match=words):
        expand_simulators(simulators)


def test_a_sweep_outside_a_config_is_refused():
    require_no_sweep(["PA", LATERAL])
    with pytest.raises(UserError, match=r"view 'a': alpha_deg is the list \[1, 2\]; expected one angle here"):
        require_no_sweep([{"name": "a", "alpha_deg": [1, 2]}])


def random_simulator(*names, bounds=(-30.0, 30.0), **changes):
    views = tuple({"name": name, "alpha_deg": {"uniform": list(bounds)}, "beta_deg": 5.0} for name in names)
    values = ("parallel", "joseph", (*views, "LAT"), (4, 5), 1.0, 0.0, 0.0, 60.0)
    return Simulator(*values, **changes)


def drawn(simulator, case="a", seed=1):
    return [view["alpha_deg"] for view in draw_angles(simulator, case=case, seed=seed).views[:-1]]


def test_a_random_angle_depends_on_case_view_and_seed_only():
    both = random_simulator("one", "two")
    first, second = drawn(both)
    assert first != second
    assert drawn(both) == [first, second]
    assert drawn(random_simulator("two", "one")) == [second, first]
    assert drawn(random_simulator("one", roll_deg=3.0)) == [first]
    assert first not in drawn(both, case="b") and first not in drawn(both, seed=2)
    kept = draw_angles(both, case="a", seed=1).views
    assert kept[0] == {"name": "one", "alpha_deg": first, "beta_deg": 5.0} and kept[2] == "LAT"


def test_both_angles_of_a_view_are_drawn_apart():
    span = {"uniform": [0.0, 1.0]}
    view = {"name": "any", "alpha_deg": span, "beta_deg": span}
    one = draw_angles(replace(random_simulator("x"), views=(view,)), case="a", seed=1).views[0]
    assert 0 <= one["alpha_deg"] != one["beta_deg"] <= 1


def test_drawn_angles_fill_their_interval():
    """200 draws from -30 to 30: mean within 3 standard errors (17.3 / sqrt 200), both ends nearly reached."""
    angles = np.array([drawn(random_simulator("v"), case=f"case{n}")[0] for n in range(200)])
    assert abs(angles.mean()) < 3 * 60 / 12**0.5 / 200**0.5
    assert -30 <= angles.min() < -27 and 27 < angles.max() <= 30


def test_a_drawn_angle_is_the_one_of_the_vectors():
    simulator = draw_angles(random_simulator("v", bounds=(40.0, 40.0)), case="a", seed=1)
    assert simulator.views[0]["alpha_deg"] == 40.0
    view = make_view(simulator.views[0], np.zeros(3), beam="parallel", detector_px=(4, 5), pixel_mm=1.0)
    tilted = np.cos(np.deg2rad(5.0))
    expected = [-tilted * np.sin(np.deg2rad(40.0)), tilted * np.cos(np.deg2rad(40.0)), np.sin(np.deg2rad(5.0)), 0]
    np.testing.assert_allclose(view.source_mm, expected, atol=1e-12)


def test_angles_as_far_from_the_lateral_on_both_sides_are_mirror_images_of_a_symmetric_patient():
    """Why EAR's curve of 60 to 140 degrees must be symmetric about 90: parallel rays at alpha and -alpha."""
    z, y, x = np.indices((6, 9, 8))
    ct = np.where((np.abs(x - 3.5) < 3) & (y > 1) & (z > 0), 40 * y - 200, -1000).astype(np.int16)
    ct[3, 2, [1, 6]] = 900
    views = tuple({"name": f"a{angle}", "alpha_deg": float(angle)} for angle in (30, -30))
    simulator = Simulator("parallel", "reference", views, (20, 25), 1.5, 0.0, 0.0, 60.0)
    plus, minus = simulate(ct, np.diag([2.0, 3.0, 4.0, 1.0]), simulator).image
    np.testing.assert_allclose(plus, minus[:, ::-1], atol=1e-6)
    assert np.abs(plus - minus).max() > 0.1


def test_the_example_config_holds_the_published_sweeps():
    """EAR varies the angle between its views from 60 to 140 degrees, X2CT-spine from 90 to 75, the lateral fixed."""
    config = check_config(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")))
    between = {
        name: abs(90 - values["views"][0]["alpha_deg"])
        for name, values in config["simulators"].items()
        if name.startswith("ear_")
    }
    assert list(between.values()) == [60, 70, 80, 90, 100, 110, 120, 130, 140]
    assert next(iter(between)) == "ear_030" and list(between)[-1] == "ear_m050"
    lateral = [values["views"][1]["alpha_deg"] for name, values in config["simulators"].items() if "spine_" in name]
    assert lateral == [90, 85, 80, 75]
    assert any(isinstance(view, dict) and isinstance(view["alpha_deg"], dict)
               for values in config["simulators"].values() for view in values["views"])  # fmt: skip


def test_the_example_config_plans(tmp_path):
    """As a user runs it: copied beside a cohort of one's own; one project job per case and expanded simulator."""
    write_cohort(tmp_path, good_rows(tmp_path))
    shutil.copy(EXAMPLE, tmp_path / "config.yaml")
    done = run(tmp_path, "-n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert jobs(done)["ingest"] == 3
    one = run(tmp_path, "-n", "results/project/ear_m050/a.h5")
    assert one.returncode == 0 and jobs(one)["project"] == 1, one.stdout + one.stderr


def test_runs_may_name_an_expanded_simulator_and_errors_list_them():
    config = yaml.safe_load((Path(ROOT) / "config.yaml").read_text(encoding="utf-8"))
    config["simulators"] = swept(30, -50)
    config["runs"] = {"mean": {"model": "mean", "simulator": "ear_m050"}}
    assert set(check_config(config)["simulators"]) == {"ear_030", "ear_m050"}
    config["runs"]["mean"]["simulator"] = "ear"
    with pytest.raises(
        UserError, match="runs.mean.simulator is 'ear'; expected one of the simulators: ear_030, ear_m050"
    ):
        check_config(config)
