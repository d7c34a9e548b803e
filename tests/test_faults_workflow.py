"""Group W of the catalogue, as far as test_workflow.py, test_thread.py and test_faults_disk.py do not have it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.__main__ import EXIT_QUARANTINE
from pipeline.files import read_table
from tests.cohorts import ROOT, clean_environment, command, good_rows, jobs, run, write_cohort, write_ct
from tests.test_workflow import digests

SMALL = {
    "grid": {"shape": 16, "spacing_mm": 5.0},
    "simulators": {"cone": {"beam": "cone", "detector_px": [16, 16], "pixel_mm": 8.0}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Three CTs, one of them set aside, run to their shards on two cores."""
    folder = tmp_path_factory.mktemp("faults")
    rows = good_rows(folder)
    (folder / "c.nii.gz").write_bytes(b"")
    write_cohort(folder, rows, max_quarantine_fraction=0.5, **SMALL)
    done = run(folder, "shards")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("bad", "words"), [(12, "12 of 20 cases cannot be used"), (20, "20 of 20 cases cannot be used")]
)
def test_w02_w03_too_many_bad_cases_stop_the_run_with_the_top_reasons(tmp_path, bad, words):
    """Through fetch only: what follows a bad file hands its record on, so that 20 records can be put there at once."""
    record = {
        "case": "x",
        "stage": "ingest",
        "status": "quarantined",
        "code": "E_GZIP_CRC",
        "reason": "the file is broken",
    }
    good = {"stage": "label", "status": "ok", "split": "test", "label_status": [3], "flags": [], "dataset": "d"}
    good["license"] = "CC-BY-4.0"
    paths = []
    for number in range(20):
        one = record if number < bad else {**good, "subject_key": str(number), "ct_sha256": str(number)}
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps({**one, "case": f"s{number:02d}"}))
    (tmp_path / "list").write_text("\n".join(map(str, paths)))
    arguments = ["cohort", "--listed-in", tmp_path / "list", "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == EXIT_QUARANTINE and "Traceback" not in done.stderr
    assert words in done.stderr and f"ingest E_GZIP_CRC ({bad})" in done.stderr
    assert len(read_table(tmp_path / "out/quarantine.tsv")) == bad
    assert not (tmp_path / "out/cases.tsv").exists()


def test_w03_when_all_are_bad_the_run_says_so_and_makes_no_shard(tmp_path):
    rows = good_rows(tmp_path)[:2]
    for row in rows:
        (tmp_path / row["ct"]).write_bytes(b"")
    write_cohort(tmp_path, rows, **SMALL)
    done = run(tmp_path, "shards")
    assert done.returncode != 0
    assert "2 of 2 cases cannot be used" in done.stdout + done.stderr and "E_NOT_NIFTI (2)" in done.stdout + done.stderr
    assert not list(tmp_path.glob("results/shards/**/*.h5"))


def test_w05_a_polite_end_leaves_no_half_file(tmp_path, finished):
    """SIGTERM to the whole process group, as a batch system sends it, at three moments; then the same command."""
    write_cohort(tmp_path, _copied(finished, tmp_path), max_quarantine_fraction=0.5, **SMALL)
    for pause_s in (1.5, 2.9, 4.3):
        process = subprocess.Popen(
            command(tmp_path, "shards"),
            cwd=tmp_path,
            env=clean_environment(),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(pause_s)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=300)
        for path in tmp_path.glob("results/**/case.json"):
            json.loads(path.read_text())
    done = run(tmp_path, "shards")
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path) == digests(finished)
    assert not list(tmp_path.glob("results/**/.*tmp*"))


def _copied(source: Path, target: Path) -> list[dict[str, str]]:
    """The cohort's files in another folder, and its rows."""
    for path in source.glob("*.nii.gz"):
        shutil.copy2(path, target / path.name)
    with (source / "cohort.csv").open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_w08_a_new_result_version_reruns_its_stage_and_a_touched_file_nothing(finished, tmp_path):
    """The version stands for the code; the workflow is run from a copy of the repository in which it is another one."""
    (finished / "a.nii.gz").touch()
    assert jobs(run(finished, "shards", "-n")) == {}
    for name in ("pipeline", "xr2ct", "resources", "profiles"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", tmp_path)
    versions = tmp_path / "pipeline/versions.py"
    text = versions.read_text()
    (line,) = (line for line in text.splitlines() if '"project":' in line)
    versions.write_text(text.replace(line, '    "project": 99,'))
    moved = [part.replace(str(ROOT / "Snakefile"), str(tmp_path / "Snakefile")) for part in command(finished, "shards")]
    done = subprocess.run(
        [*moved, "-n"], cwd=finished, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert jobs(done) == {"project": 2, "shard": 2, "shards": 1}, done.stdout + done.stderr


@pytest.mark.parametrize("size", ["another", "the same"])
def test_w09_a_ct_that_is_replaced_by_an_older_file_is_noticed(finished, tmp_path, size):
    """As rsync -t and unzip do it: other content, and a time before that of everything made from it."""
    path = finished / "b.nii.gz"
    before, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    (tmp_path / "new").mkdir()
    write_ct(tmp_path / "new", "b", shift=(0, 3, 1), seed=5)
    other = (tmp_path / "new/b.nii.gz").read_bytes() if size == "another" else before[:-8] + bytes(8)
    path.write_bytes(other)
    os.utime(path, ns=(times[0] - 10**12, times[1] - 10**12))
    try:
        found = jobs(run(finished, "shards", "-n"))
        assert (found["fetch_case"], found["ingest"], found["label"]) == (1, 1, 1)
    finally:
        path.write_bytes(before)
        os.utime(path, ns=times)


def test_w09_the_voxels_of_a_metaimage_are_watched_like_its_header(tmp_path):
    """Other voxels under an untouched header: newer or older, the CT is fetched, and thus read, again."""
    (tmp_path / "a.mhd").write_text("ObjectType = Image\nElementDataFile = a.raw\n")
    raw = tmp_path / "a.raw"
    raw.write_bytes(bytes(20_000))
    write_cohort(tmp_path, [{"case": "a", "ct": "a.mhd"}], **SMALL)
    done = run(tmp_path, "results/fetch/a/case.json")
    assert done.returncode == 0, done.stderr
    assert jobs(run(tmp_path, "results/fetch/a/case.json", "-n")) == {}
    written_ns = raw.stat().st_mtime_ns
    raw.write_bytes(bytes(10_000) + bytes([1]) * 10_000)
    for age_s in (-1000, 1000):
        time_ns = written_ns + age_s * 10**9
        os.utime(raw, ns=(time_ns, time_ns))
        assert jobs(run(tmp_path, "results/fetch/a/case.json", "-n"))["fetch_case"] == 1


def test_w11_links_and_read_only_files_in_a_folder_with_spaces(tmp_path, finished):
    here, there = tmp_path / "my run", tmp_path / "archive of 2019"
    here.mkdir(), there.mkdir()
    rows = _copied(finished, there)
    for path in there.iterdir():
        path.chmod(0o444)
        (here / path.name).symlink_to(path)
    there.chmod(0o555)
    write_cohort(here, rows, max_quarantine_fraction=0.5, **SMALL)
    try:
        done = run(here, "shards")
    finally:
        there.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert digests(here) == digests(finished)


def test_w13_a_second_run_in_the_same_folder_is_refused_and_the_first_goes_on(tmp_path, finished):
    write_cohort(tmp_path, _copied(finished, tmp_path), max_quarantine_fraction=0.5, **SMALL)
    first = subprocess.Popen(
        command(tmp_path, "shards"),
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob(".snakemake/locks/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    second = run(tmp_path, "shards")
    assert second.returncode != 0 and "Directory cannot be locked" in second.stdout + second.stderr
    assert first.wait(timeout=300) == 0
    assert digests(tmp_path) == digests(finished)


def test_w16_one_job_at_a_time_and_another_order_of_cases_give_the_same_bytes(tmp_path, finished):
    write_cohort(tmp_path, _copied(finished, tmp_path)[::-1], max_quarantine_fraction=0.5, **SMALL)
    done = run(tmp_path, "shards", "--cores", "1")
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path) == digests(finished)
    for name in ("cases.tsv", "quarantine.tsv"):
        path = Path("results/cohort") / name
        assert (tmp_path / path).read_bytes() == (finished / path).read_bytes()


SUBMIT = """#!/bin/bash
# A batch system on a bad day: the 2nd job is lost, the 4th is killed as by the kernel short of memory, and what a job
# writes is seen by others only some seconds after the job is said to have ended well.
count=$(($(cat "$FAKE/count" 2>/dev/null || echo 0) + 1))
echo $count > "$FAKE/count"
case $count in
    2) echo failed > "$FAKE/$count" ;;
    4) bash -c 'kill -9 $$'; [ $? = 137 ] && echo failed > "$FAKE/$count" ;;
    *) echo success > "$FAKE/$count"; (sleep 2; bash "$1") > "$FAKE/$count.log" 2>&1 & ;;
esac
echo $count
"""


@pytest.mark.slow
def test_w15_a_cluster_that_loses_jobs_and_shows_files_late(tmp_path):
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    fake = tmp_path / "fake"
    fake.mkdir()
    (fake / "submit").write_text(SUBMIT)
    (fake / "status").write_text('#!/bin/bash\ncat "$FAKE/$1"\n')
    for name in ("submit", "status"):
        (fake / name).chmod(0o755)
    write_cohort(tmp_path, good_rows(tmp_path)[:1], **SMALL)
    cluster = ["--executor", "cluster-generic", "--cluster-generic-submit-cmd", str(fake / "submit"), "--jobs", "4"]
    cluster += ["--cluster-generic-status-cmd", str(fake / "status"), "--latency-wait", "40", "--retries", "2"]
    line = [part for part in command(tmp_path, "shards") if part not in ("--cores", "2")]
    done = subprocess.run(
        [*line, *cluster, "--seconds-between-status-checks", "1"],
        cwd=tmp_path,
        env=clean_environment() | {"FAKE": str(fake)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(digests(tmp_path)) == 1
    assert int((fake / "count").read_text()) == 6 + 2  # fetch, ingest, label, cohort, project, shard; two once more
