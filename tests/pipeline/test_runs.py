"""Runs of a config: one per seed, each beginning where it says; every mistake is named before anything is trained."""

import re

import pytest

from pipeline.errors import UserError
from pipeline.runs import check_runs, expand_runs


def spider(**keys):
    return {"model": "spider", "simulator": "cone", "settings": {}, "train_on": "train", "limit": 0} | keys


def test_a_run_becomes_one_run_per_seed_and_one_without_seeds_has_that_of_the_experiment():
    runs = expand_runs({"a": spider(), "b": spider(seeds=[3, 1], settings={"steps": 5})}, seed=9)
    assert list(runs) == ["a", "b-seed3", "b-seed1"]
    assert [run["seed"] for run in runs.values()] == [9, 3, 1]
    assert all("seeds" not in run and run["start"] == "" for run in runs.values())
    assert runs["b-seed3"]["settings"] == {"steps": 5}


@pytest.mark.parametrize(
    ("seeds_before", "seeds_after", "starts"),
    [
        (None, None, ["before"]),
        (None, [4, 5], ["before", "before"]),
        ([5, 4], [4, 5], ["before-seed4", "before-seed5"]),
    ],
)
def test_a_run_begins_from_that_of_its_own_seed(seeds_before, seeds_after, starts):
    keys = [{"seeds": seeds} if seeds else {} for seeds in (seeds_before, seeds_after)]
    runs = expand_runs({"before": spider(**keys[0]), "after": spider(start="before", **keys[1])}, seed=1)
    assert [run["start"] for name, run in runs.items() if name.startswith("after")] == starts


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ({"a": spider(start="b")}, "runs.a.start is 'b'; expected one of the runs: a."),
        ({"a": spider(start="a")}, "in a circle: a <- a. Remove"),
        ({"a": spider(start="b"), "b": spider(start="c"), "c": spider(start="b")}, "in a circle: a <- b <- c <- b"),
        (
            {"a": spider(seeds=[1, 2]), "b": spider(start="a", seeds=[2, 3])},
            "which has the seeds 1, 2, but runs.b has seed 3; expected seeds out of those. Set runs.b.seeds.",
        ),
        ({"a": spider(seeds=[1]), "b": spider(start="a")}, "which has the seeds 1, but runs.b has no seeds"),
        ({"a": spider(model="mean"), "b": spider(start="a")}, "a run of model mean, for a run of model spider"),
        (
            {"a": spider(model="mean"), "b": spider(model="mean", start="a")},
            "expected two runs of one model that is trained",
        ),
        (
            {"a": spider(), "b": spider(start="a", simulator="parallel")},
            "runs.b.start is 'a', which sees the X-rays of cone, but runs.b those of parallel; expected the same simulator",
        ),
        ({"a-seed3": spider()}, "runs.a-seed3 has a name that the workflow gives itself"),
        ({"true-ct": spider()}, "runs.true-ct has a name that the workflow gives itself"),
    ],
)
def test_mistakes_of_seeds_and_starts_are_named(runs, words):
    with pytest.raises(UserError, match=re.escape(words)):
        expand_runs(runs, seed=1)


@pytest.mark.parametrize(
    ("settings", "tables", "words"),
    [
        ({"structures": ["hip", "femr"]}, {}, "runs.a.settings.structures names 'femr'; expected some of: hip, femur"),
        ({"structures": ["none", "hip"]}, {}, "names 'none'"),
        ({"structures": "hip"}, {}, "is 'hip'; expected a list of structures"),
        ({}, {"One": ["a", "b"]}, "tables.One names the run 'b'; expected some of: a (without seeds)"),
        ({}, {"One": ["a-seed1"]}, "tables.One names the run 'a-seed1'"),
        ({}, {" ": ["a"]}, "tables has the title ' '; expected words that do not begin with '-'. Rename"),
        ({}, {"-one": ["a"]}, "tables has the title '-one'"),
    ],
)
def test_what_runs_and_tables_name_must_exist(settings, tables, words):
    with pytest.raises(UserError, match=re.escape(words)):
        check_runs({"a": spider(settings=settings, seeds=[1])}, structures=["hip", "femur"], tables=tables)


def test_settings_of_a_model_that_has_none_are_refused():
    with pytest.raises(UserError, match=r"runs\.a has settings, but model mean has none to choose\. Remove them"):
        check_runs({"a": spider(model="mean", settings={"steps": 3})}, structures=[], tables={})


@pytest.mark.parametrize("structures", [["none"], [], ["femur"]])
def test_intensity_only_all_and_some_structures_are_allowed(structures):
    check_runs({"a": spider(settings={"structures": structures})}, structures=["hip", "femur"], tables={"One": ["a"]})
