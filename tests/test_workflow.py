"""The workflow as a user meets it: bad files beside good ones, reruns, mistakes, and a power cut in every stage."""

import hashlib
import shutil

import h5py
import numpy as np
import pytest
import yaml

from pipeline.files import read_table
from pipeline.patients import case_id
from tests.cohorts import CONFIG, ROOT, good_rows, jobs, kill_during, run, write_cohort, write_config, write_ct

DERIVE = [{"parent": "a", "train": 1, "family": 1}]


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("results/shards/**/*.h5"))
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A cohort of three CTs and two derived cases, run to its shards."""
    folder = tmp_path_factory.mktemp("finished run")
    write_cohort(folder, good_rows(folder), derive=DERIVE)
    done = run(folder, "shards")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_without_conda_the_users_command_runs_and_says_so_once(finished):
    folder, done = finished
    assert done.stderr.count("note: there is no conda here") == (0 if shutil.which("conda") else 1)
    names = [path.name for path in sorted(folder.glob("results/shards/little/*.h5"))]
    assert names == ["family-00000-of-00001.h5", "test-00000-of-00001.h5", "train-00000-of-00001.h5"]


def test_derived_cases_are_marked_and_keep_their_parents_patient(finished):
    folder, _ = finished
    with h5py.File(folder / "results/shards/little/train-00000-of-00001.h5") as file:
        assert file["case/id"].asstr()[:].tolist() == ["a", "a-d0001"]
        assert file["case/derived_from"].asstr()[:].tolist() == ["", "a"]
        assert len(set(file["case/subject_key"].asstr()[:])) == 1
        assert (file["ct"][0] != file["ct"][1]).mean() > 0.1
        np.testing.assert_array_equal(file["case/affine"][0], file["case/affine"][1])


def test_after_success_there_is_nothing_to_do(finished):
    done = run(finished[0], "shards", "-n")
    assert "Nothing to be done" in done.stdout + done.stderr and jobs(done) == {}


def test_forcing_a_rule_runs_it_and_what_depends_on_it_only(finished):
    assert jobs(run(finished[0], "shards", "-n", "-R", "project")) == {"project": 10, "shard": 3, "shards": 1}


def test_a_deleted_intermediate_is_made_again(finished):
    folder, _ = finished
    (folder / "results/shards/little/test-00000-of-00001.h5").rename(folder / "kept.h5")
    try:
        assert jobs(run(folder, "shards", "-n")) == {"shard": 1, "shards": 1}
    finally:
        (folder / "kept.h5").rename(folder / "results/shards/little/test-00000-of-00001.h5")


def with_simulator(name, **changes):
    simulators = {key: dict(value) for key, value in CONFIG["simulators"].items()}
    simulators[name] |= changes
    return {"simulators": simulators}


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        (with_simulator("cone", sod_mm=650), {"project": 5, "shard": 3}),
        ({"deformation": {"noise_hu": 3}}, {"derive": 2, "project": 4, "shard": 3}),
        ({"structures": ["heart", "liver"]}, {"label": 3, "cohort": 1}),
        ({"grid": {"shape": 32, "spacing_mm": 3.5}}, {"ingest": 3, "label": 3, "cohort": 1}),
        ({"max_quarantine_fraction": 0.5}, {"cohort": 1}),
        ({"window_hu": [-900, 1400]}, {}),
        ({"runs": {"mean": {"model": "mean", "simulator": "cone"}}}, {}),
    ],
    ids=lambda value: "-".join(value),
)
def test_a_changed_value_reruns_exactly_what_depends_on_it(finished, change, rules):
    """A rerun of the cohort checkpoint hides what follows it in a dry run; what stands before it is exact."""
    folder, _ = finished
    write_config(folder, derive=DERIVE, **change)
    try:
        found = jobs(run(folder, "shards", "-n"))
    finally:
        write_config(folder, derive=DERIVE)
    found.pop("shards", None)
    after_checkpoint = {"derive", "project", "shard"} if "cohort" in rules else set()
    assert {rule: count for rule, count in found.items() if rule not in after_checkpoint} == rules


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sede": 3}, "key 'sede' at the top level is not known; the nearest valid key is 'seed'"),
        ({"structures": ["hart"]}, "structure 'hart' is not known"),
    ],
)
def test_a_misspelt_config_stops_the_dry_run_in_words(finished, change, words):
    folder, _ = finished
    write_config(folder, derive=DERIVE, **change)
    try:
        done = run(folder, "shards", "-n")
    finally:
        write_config(folder, derive=DERIVE)
    assert done.returncode != 0 and words in done.stderr
    assert "Traceback" not in done.stderr


def test_the_slurm_profile_plans_the_same_jobs(finished):
    done = run(finished[0], "shards", "-n", "-R", "shard", "--workflow-profile", str(ROOT / "profiles/slurm"))
    assert done.returncode == 0, done.stderr
    assert jobs(done) == {"shard": 3, "shards": 1}


def test_a_leaking_split_stops_the_run_and_names_both_cases(tmp_path):
    rows = good_rows(tmp_path)[:2]
    for row in rows:
        row["subject"] = "one patient"
    write_cohort(tmp_path, rows)
    done = run(tmp_path, "shards")
    assert done.returncode != 0
    assert "cases a (split train) and b (split test) are of one patient" in done.stdout + done.stderr
    assert not list(tmp_path.glob("results/shards/**/*.h5"))


def spoil(folder):
    """Bad files of every kind beside a good one, each with the code it must get."""
    good = (folder / "a.nii.gz").read_bytes()
    plain = __import__("gzip").decompress(good)
    header = bytearray(plain[:352])
    codes = {}

    def bad(name, content, code):
        (folder / f"{name}.nii.gz").write_bytes(content)
        codes[name] = code

    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0x10
    voxels = np.frombuffer(plain[352:], np.int16)
    floats = bytearray(header)
    floats[70:74] = np.array([16, 32], np.int16).tobytes()
    no_orientation = bytearray(plain)
    no_orientation[252:256] = bytes(4)
    bad("truncated", good[: len(good) // 2], "E_GZIP_TRUNCATED")
    bad("flipped", bytes(flipped), "E_GZIP_CRC")
    bad("unoriented", bytes(no_orientation), "E_NO_ORIENTATION")
    bad("nan", bytes(floats) + np.full(voxels.size, np.nan, np.float32).tobytes(), "E_NONFINITE")
    bad("constant", bytes(header) + np.full_like(voxels, 7).tobytes(), "E_CONSTANT")
    bad("html", b"<html>404</html>" * 40, "E_NOT_NIFTI")
    bad("empty", b"", "E_NOT_NIFTI")
    codes["gone"] = "E_MISSING"
    return codes


def odd_rows(folder, names):
    """CTs under hostile ids, in folders of the same names, in a split of their own."""
    rows = []
    for number, name in enumerate(names):
        row = write_ct(folder, f"odd{number}", seed=20 + number)
        place = folder / "odd" / name.replace("/", "_")
        place.mkdir(parents=True)
        for kind in ("ct", "label"):
            (folder / row[kind]).rename(place / row[kind])
            row[kind] = str((place / row[kind]).relative_to(folder))
        rows.append(row | {"case": name, "split": "validation"})
    return rows


def test_bad_files_and_hostile_names_leave_the_good_ones_untouched(tmp_path, finished):
    rows = good_rows(tmp_path)
    codes = spoil(tmp_path)
    rows += [{"case": name, "ct": f"{name}.nii.gz"} for name in codes]
    hostile = ["../x", "a;touch P", "$(touch Q)", "a b", "</script><img onerror=alert(1)>", "CON", "{x}"]
    rows += odd_rows(tmp_path, hostile)
    write_cohort(tmp_path, rows, derive=DERIVE, max_quarantine_fraction=0.9)
    before = {path.name for path in tmp_path.iterdir()}
    outside = set(tmp_path.parent.iterdir())

    done = run(tmp_path, "shards")
    assert done.returncode == 0, done.stdout + done.stderr
    table = read_table(tmp_path / "results/cohort/quarantine.tsv")
    found = {row["case"]: row for row in table}
    assert {name: found[name]["code"] for name in codes} == codes
    assert {row["case"] for row in table} == set(codes)
    assert all(len(row["sha256"]) == 64 * (row["case"] != "gone") for row in table)
    good = {row["case"] for row in read_table(tmp_path / "results/cohort/cases.tsv")}
    assert {case_id(name) for name in hostile} <= good
    assert all(len(row["reason"].split()) > 3 and str(tmp_path) not in row["reason"] for row in table)
    assert {path.name for path in tmp_path.iterdir()} - before == {"results", ".snakemake"}
    assert set(tmp_path.parent.iterdir()) == outside
    assert digests(finished[0]).items() <= digests(tmp_path).items()


def test_a_power_cut_in_every_stage_ends_in_the_same_bytes(tmp_path, finished):
    """kill -9 of the whole process tree while each stage is at work, then the same command until it is through."""
    write_cohort(tmp_path, good_rows(tmp_path), derive=DERIVE)
    stages = ("fetch", "ingest", "label", "cohort", "derive", "project", "shard")
    for stage in stages:
        kill_during(stage, tmp_path, "shards")
    done = run(tmp_path, "shards")
    assert done.returncode == 0, done.stdout + done.stderr
    assert digests(tmp_path) == digests(finished[0])
    assert not list(tmp_path.glob("results/**/.*tmp*"))
    assert "Nothing to be done" in (again := run(tmp_path, "shards", "-n")).stdout + again.stderr


def test_shards_of_an_earlier_configuration_are_put_out_of_reach(tmp_path):
    """The same patient moves from test to train: no reader of *.h5 may find it in both."""
    rows = good_rows(tmp_path)[1:2]
    write_cohort(tmp_path, rows)
    assert run(tmp_path, "shards").returncode == 0
    rows[0]["split"] = "train"
    write_cohort(tmp_path, rows)
    done = run(tmp_path, "shards")
    assert done.returncode == 0 and "is of an earlier configuration" in done.stderr
    folder = tmp_path / "results/shards/little"
    assert sorted(path.name for path in folder.iterdir()) == ["test-00000-of-00001.h5.stale", "train-00000-of-00001.h5"]


def test_a_run_without_training_cases_stops_the_dry_run(tmp_path):
    write_cohort(tmp_path, good_rows(tmp_path)[1:], runs={"mean": {"model": "mean", "simulator": "cone"}})
    done = run(tmp_path, "-n")
    assert done.returncode != 0 and "run mean has no case to train on" in done.stdout + done.stderr


def test_the_demo_config_plans_its_cases():
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    (derive,) = config["derive"]
    assert (derive["train"], derive["family_validation"], derive["family"]) == (24, 2, 6)
