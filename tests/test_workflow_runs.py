"""Seeds, starts, splits to train on, tables and the judge, as a user meets them; and every config that comes with us."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml

from pipeline.config import check_config, schema
from pipeline.errors import UserError
from pipeline.files import read_table
from pipeline.plan import make_plan
from tests.cohorts import CONFIG, ROOT, good_rows, jobs, run, write_cohort, write_config
from xr2ct.judge.sizes import SIZES
from xr2ct.models.registry import MODELS, choose

CONFIGS = ROOT / "resources/configs"
EXPERIMENTS = sorted((CONFIGS / "experiments").glob("*.yaml"))
BENCHES = sorted(CONFIGS.glob("bench_*.yaml"))
TINY = {"steps": 3, "batch": 1, "widths": [8, 8, 16], "hidden": 16, "points": 8, "run": 4, "log2_entries": 10}
CHANGES = {
    "simulators": {"parallel": CONFIG["simulators"]["parallel"]},
    "derive": [
        {"parent": "a", "train": 1, "family": 1},
        {"parent": "a", "family_transfer": 1, "deformation": {"max_rotation_deg": 30, "noise_hu": 0}},
    ],
    "runs": {
        "mean": {"model": "mean", "simulator": "parallel"},
        "spider": {"model": "spider", "simulator": "parallel", "seeds": [2, 1], "settings": TINY},
        "fitted": {
            "model": "spider",
            "simulator": "parallel",
            "seeds": [1, 2],
            "start": "spider",
            "train_on": "family_transfer",
            "limit": 1,
            "settings": TINY | {"dice_weight": 0, "entropy_weight": 0},
        },
    },
    "tables": {"One & two: $HOME 'models'": ["spider", "mean"], "Fitted": ["spider", "fitted"]},
    "report_splits": ["family", "family_transfer"],
}


def merged(*paths: Path) -> dict:
    """What Snakemake makes of several --configfile: mappings are merged, everything else is replaced."""

    def merge(into: dict, more: dict) -> dict:
        return into | {
            key: merge(into[key], value) if isinstance(value, dict) and isinstance(into.get(key), dict) else value
            for key, value in more.items()
        }

    config: dict = {}
    for path in paths:
        config = merge(config, yaml.safe_load(path.read_text(encoding="utf-8")))
    return config


BENCH_64 = CONFIGS / "bench_pelvis_64.yaml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A phantom patient and its deformations, two seeds of a tiny network, fitted to another deformation."""
    folder = tmp_path_factory.mktemp("runs")
    write_cohort(folder, good_rows(folder)[:1], **CHANGES)
    done = run(folder, "--printshellcmds")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


def identity(folder: Path, name: str) -> dict:
    """The identity of a trained run, as its checkpoint keeps it."""
    from xr2ct.checkpoint import load_checkpoint

    return load_checkpoint(folder / f"results/train/{name}/model.pt")["identity"]


def test_every_seed_is_a_run_of_its_own(finished):
    names = {path.parent.name for path in finished[0].glob("results/train/*/model.pt")}
    assert names == {"mean", "spider-seed1", "spider-seed2", "fitted-seed1", "fitted-seed2"}
    assert [identity(finished[0], f"spider-seed{n}")["seed"] for n in (1, 2)] == [1, 2]
    assert identity(finished[0], "mean")["seed"] == CONFIG["seed"]
    first, second = ((finished[0] / f"results/train/spider-seed{n}/train.csv").read_text() for n in (1, 2))
    assert first != second


def test_a_run_begins_from_the_trained_one_of_its_seed_and_sees_its_split_only(finished):
    for seed in (1, 2):
        (begin,) = re.findall(r"--start (\S+)", log_of(finished[1], f"results/train/fitted-seed{seed}/model.pt"))
        assert begin == f"results/train/spider-seed{seed}/model.pt"
    command = log_of(finished[1], "results/train/fitted-seed1/model.pt")
    assert re.findall(r"--shards (\S+)", command) == ["results/shards/little/family_transfer-00000-of-00001.h5"]
    assert "--limit 1 " in command and "--limit" not in log_of(finished[1], "results/train/spider-seed1/model.pt")


def log_of(done, output: str) -> str:
    """The block of Snakemake's log about the job that makes `output`, with its command (--printshellcmds)."""
    blocks = re.split(r"\n(?=\[\w{3} \w{3} +\d)", done.stdout + done.stderr)
    (block,) = [block for block in blocks if re.search(rf"output: .*{re.escape(output)}(,|$)", block, re.MULTILINE)]
    return block


def test_a_derived_case_can_have_a_deformation_of_its_own(finished):
    records = {
        path.parent.name: json.loads(path.read_text()) for path in finished[0].glob("results/derive/*/case.json")
    }
    assert {name: record["split"] for name, record in records.items()} == {
        "a-d0001": "train",
        "a-d0002": "family",
        "a-d0003": "family_transfer",
    }
    for case, degrees in (("a-d0001", 4), ("a-d0003", 30)):
        command = log_of(finished[1], f"results/derive/{case}/case.json")
        assert f"--max-rotation-deg {degrees} " in command and "--max-scale 0.05 " in command


def test_tables_reach_the_report_with_their_titles_as_they_are(finished):
    page = (finished[0] / "results/report/index.html").read_text()
    assert "One &amp; two: $HOME" in page and "Fitted" in page
    with (finished[0] / "results/report/summary.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert {row["model"] for row in rows} >= {"mean", "spider", "fitted"}


def test_after_success_there_is_nothing_to_do(finished):
    done = run(finished[0], "-n")
    assert "Nothing to be done" in done.stdout + done.stderr


def changed(name: str, **keys) -> dict:
    return {"runs": CHANGES["runs"] | {name: CHANGES["runs"][name] | keys}}


def later(trained: int) -> dict[str, int]:
    return {"train": trained, "reconstruct": trained, "evaluate": trained, "report": 1}


def dry_run(folder: Path, change: dict, *options: str):
    """A dry run with some keys of the config changed; the config is put back."""
    write_config(folder, **(CHANGES | change))
    try:
        return run(folder, "-n", *options)
    finally:
        write_config(folder, **CHANGES)


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        (changed("fitted", limit=2), later(2)),
        (changed("spider", settings=TINY | {"steps": 4}), later(4)),
        ({"tables": {"One": ["spider"]}}, {"report": 1}),
        ({"judge": {"kind": "totalsegmentator-fast"}}, {"judge": 5, "judge_true_cts": 1, "report": 1}),
        ({"legacy": True}, {"evaluate": 5, "report": 1}),
    ],
    ids=["limit", "setting-of-the-start", "tables", "totalsegmentator", "legacy"],
)
def test_a_changed_value_reruns_exactly_what_depends_on_it(finished, change, rules):
    found = jobs(dry_run(finished[0], change))
    found.pop("all", None)
    assert found == rules


def test_the_judge_sees_the_true_cts_of_the_training_split_and_then_every_run(finished):
    done = dry_run(finished[0], {"judge": {"kind": "nnunet", "size": "stock"}}, "--printshellcmds")
    assert jobs(done) == {"judge_train": 1, "judge": 5, "judge_true_cts": 1, "report": 1, "all": 1}
    train = log_of(done, "results/judge/nnunet/judge.json")
    assert "judge-train --kind nnunet --size stock --shards results/shards/little/train-00000-of-00001.h5 " in train
    ceiling = log_of(done, "results/judge/nnunet/true-ct.csv")
    assert "--judge results/judge/nnunet " in ceiling and "--reconstructions" not in ceiling
    of_run = log_of(done, "results/judge/nnunet/spider-seed2.csv")
    assert "--reconstructions results/reconstruct/spider-seed2/index.json " in of_run
    (evaluations,) = re.findall("--evaluations (.*?) --", log_of(done, "results/report/index.html"))
    assert len(evaluations.split()) == 5 + 6 and "results/judge/nnunet/true-ct.csv" in evaluations


def test_several_judges_see_every_run_and_the_report_gets_all_of_them(finished):
    kinds = ("nnunet", "totalsegmentator")
    done = dry_run(finished[0], {"judge": [{"kind": kind} for kind in kinds]}, "--printshellcmds")
    assert jobs(done) == {"judge_train": 1, "judge": 2 * 5, "judge_true_cts": 2, "report": 1, "all": 1}
    assert "--judge totalsegmentator " in log_of(done, "results/judge/totalsegmentator/spider-seed2.csv")
    assert "judge-train --kind nnunet --size small " in log_of(done, "results/judge/nnunet/judge.json")
    (evaluations,) = re.findall("--evaluations (.*?) --", log_of(done, "results/report/index.html"))
    runs = ("true-ct", "mean", "spider-seed1", "spider-seed2", "fitted-seed1", "fitted-seed2")
    judged = {path for path in evaluations.split() if "/judge/" in path}
    assert judged == {f"results/judge/{kind}/{run}.csv" for kind in kinds for run in runs}


def test_a_judge_that_the_config_does_not_name_is_not_trained(finished):
    done = run(finished[0], "-n", "results/judge/nnunet/judge.json")
    assert done.returncode != 0 and "ERROR: judge names no kind nnunet" in done.stderr


def test_legacy_metrics_are_computed_where_the_config_asks_for_them(finished):
    done = dry_run(finished[0], {"legacy": True}, "--printshellcmds")
    assert "--window -1000 1500 --legacy --out results/evaluate/mean.csv" in log_of(done, "results/evaluate/mean.csv")
    assert "--legacy" not in finished[1].stdout + finished[1].stderr


def test_a_split_without_cases_to_train_on_stops_the_dry_run_in_words(finished):
    done = dry_run(finished[0], changed("spider", train_on="validation"))
    assert done.returncode != 0 and "run spider-seed2 has no case to train on" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed("fitted", start="spidr"), "runs.fitted.start is 'spidr'; expected one of the runs: mean, spider"),
        (changed("fitted", seeds=[3]), "which has the seeds 2, 1, but runs.fitted has seed 3"),
        (changed("spider", seeds=[]), "runs.spider.seeds is []; expected minItems 1"),
        (changed("mean", limit=-1), "runs.mean.limit is -1; expected minimum 0"),
        (changed("mean", train_on="all"), "runs.mean.train_on is 'all'; expected one of: train, validation"),
        (changed("spider", settings={"structures": ["hart"]}), "names 'hart'; expected some of: heart, sternum, liver"),
        ({"tables": {"One": ["spider-seed1"]}}, "tables.One names the run 'spider-seed1'"),
        ({"tables": {"a=b": ["spider"]}}, "config: tables is"),
        ({"judge": {"kind": "nnUNet"}}, "judge.kind is 'nnUNet'; expected one of: none, nnunet"),
        (
            {"derive": [{"parent": "a", "train": 1, "deformation": {"max_rotation": 3}}]},
            "key 'max_rotation' at derive.0.deformation is not known; the nearest valid key is 'max_rotation_deg'",
        ),
        (
            {"derive": [{"parent": "a", "train": 1, "deformation": {"max_scale": 3}}]},
            "derive.0.deformation.max_scale is 3; expected maximum 0.3",
        ),
    ],
)
def test_mistakes_are_named_before_the_first_job(change, words):
    with pytest.raises(UserError, match=re.escape(words)):
        check_config(CONFIG | CHANGES | change)


@pytest.mark.parametrize("bench", BENCHES, ids=lambda path: path.stem)
def test_the_bench_holds_the_cases_it_promises(bench, tmp_path):
    config = check_config(merged(bench))
    derived = make_plan(config, tmp_path).derived
    splits = [case.split for case in derived.values()]
    assert {name: splits.count(name) for name in set(splits)} == {
        "train": 96,
        "family_validation": 16,
        "family": 24,
        "family_transfer": 1,
    }
    assert len(config["structures"]) == 8 and set(config["simulators"]) == {"parallel", "cone"}
    fields = {config["grid"]["shape"] * config["grid"]["spacing_mm"]}
    fields |= {
        px * simulator["pixel_mm"] for simulator in config["simulators"].values() for px in simulator["detector_px"]
    }
    assert min(fields) == 384


def test_both_benches_are_the_same_deformations_on_two_grids():
    small, large = (check_config(merged(CONFIGS / f"bench_pelvis_{size}.yaml")) for size in (64, 128))
    for key in ("seed", "cohort", "derive", "deformation", "structures", "window_hu"):
        assert small[key] == large[key], key


@pytest.mark.parametrize("bench", BENCHES, ids=lambda path: path.stem)
def test_published_sums_name_the_shards_of_the_bench(bench):
    lines = (ROOT / "resources" / f"{bench.stem}.sha256").read_text().splitlines()
    sums = dict(reversed(re.fullmatch(r"([0-9a-f]{64})  (results/shards/\S+\.h5)", line).groups()) for line in lines)
    counts = {"train": 4, "family": 1, "family_validation": 1, "family_transfer": 1}
    assert list(sums) == sorted(
        f"results/shards/totalsegmentator-example/{split}-{number:05d}-of-{count:05d}.h5"
        for split, count in counts.items()
        for number in range(count)
    )


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_stands_on_the_bench_alone(path):
    """Every one of them after the bench, without the others; each adds at least one table with seeds in it."""
    config, bench = merged(BENCH_64, path), merged(BENCH_64)
    check_config(config)
    assert config["tables"] and set(config["tables"]) - set(bench.get("tables", {}))
    for key in set(bench) - {"runs", "tables", "report_splits"}:
        assert config[key] == bench[key], "an experiment must not change the data"
    for name in set(config["runs"]) - set(bench["runs"]):
        assert config["runs"][name]["seeds"] == [1, 2, 3], name


def test_the_config_knows_every_model_setting_and_size_of_judge():
    keys = schema()["properties"]["runs"]["additionalProperties"]["properties"]
    named, known = keys["settings"]["propertyNames"]["enum"], {model.settings for model in MODELS.values()}
    assert set(keys["model"]["enum"]) == set(MODELS)
    assert set(named) == {"preset", *(field.name for settings in known for field in dataclasses.fields(settings))}
    assert schema()["properties"]["judge"]["properties"]["size"]["enum"] == list(SIZES)


def test_experiments_that_share_a_run_agree_about_it():
    seen: dict[str, dict] = {}
    for path in EXPERIMENTS:
        for name, values in merged(path).get("runs", {}).items():
            assert seen.setdefault(name, values) == values, name


@pytest.mark.parametrize("path", [ROOT / "config.yaml", *sorted(CONFIGS.glob("*.yaml"))], ids=lambda path: path.stem)
def test_settings_of_every_config_are_those_of_its_models(path):
    overlays = EXPERIMENTS if path == BENCH_64 else []
    for values in check_config(merged(path, *overlays))["runs"].values():
        choose(values["model"], values["settings"])


def test_every_config_passes_a_dry_run(tmp_path):
    """Public data sets and folders stop at their lists of cases, the bench at the cohort: none may fail before."""
    (tmp_path / "cohort.csv").write_text("case,ct,split\na,a.nii.gz,train\n")
    (tmp_path / "a.nii.gz").touch()
    for path in sorted(CONFIGS.glob("*.yaml")):
        overlays = EXPERIMENTS if path == BENCH_64 else []
        done = run(tmp_path, "-n", "--configfile", str(path), *map(str, overlays))
        assert done.returncode == 0, f"{path.name}: {done.stdout + done.stderr}"


def test_the_whole_bench_is_planned_to_its_report(finished):
    """The runs, tables and judge of the bench with all experiments, on the shards of a little cohort."""
    folder, _ = finished
    config = merged(BENCH_64, *EXPERIMENTS)
    runs = len(check_config(config)["runs"])
    keys = {key: config[key] for key in ("runs", "tables", "judge", "report_splits")}
    structures = CONFIG["structures"]
    for values in keys["runs"].values():
        if values.get("settings", {}).get("structures", ["none"]) != ["none"]:
            values["settings"]["structures"] = structures[:2]
    found = jobs(dry_run(folder, keys))
    assert {rule: found[rule] for rule in ("judge_train", "judge_true_cts", "report")} == dict.fromkeys(
        ("judge_train", "judge_true_cts", "report"), 1
    )
    assert (found["reconstruct"], found["evaluate"], found["judge"]) == (runs - 1, runs - 1, runs)
    assert read_table(folder / "results/cohort/cases.tsv")
