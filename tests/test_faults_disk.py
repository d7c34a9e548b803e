"""A disk that is full, and memory that is short, in every stage that writes: exit 75, nothing published, no one blamed."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.__main__ import EXIT_TRANSIENT, main
from pipeline.xray_file import save_xray
from tests.pipeline.records import fetched
from tests.pipeline.test_ingest import AFFINE, person, write_nifti
from tests.test_faults_shards import one_case

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The inputs of every stage, made by the stages before it, and the command of each with `OUT` to be filled in."""
    folder = tmp_path_factory.mktemp("disk")
    ct, ids = person()
    write_nifti(folder / "ct.nii.gz", ct.T, AFFINE)
    write_nifti(folder / "label.nii.gz", ids.T, AFFINE)
    fetched(folder, folder / "ct.nii.gz", folder / "label.nii.gz")
    record = "{}/{}/case.json".format
    save_xray(folder / "project/parallel/a.h5", one_case(0).xrays["parallel"])
    commands = {
        "ingest": [record(folder, "fetch"), "--cube", "40", "--spacing-mm", "2.5", "--out", "OUT/ingest"],
        "label": [record(folder, "ingest"), "--structures", "kidney", "liver", "--out", "OUT/label"],
        "cohort": [record(folder, "label"), "--out", "OUT/cohort"],
        "derive": [record(folder, "label"), "--case", "a-d1", "--split", "train", "--number", "1", "--out", "OUT/derive"],
        "project": [record(folder, "label"), "--beam", "parallel", "--detector-px", "64", "64", "--out", "OUT/p.h5"],
        "shard": [
            record(folder, "label"), "--projections", str(folder / "project"), "--simulators", "parallel", "--out", "OUT/s.h5"
        ],
    }  # fmt: skip
    commands = {stage: [stage, *arguments] for stage, arguments in commands.items()}
    for stage in ("ingest", "label"):
        assert main([part.replace("OUT", str(folder)) for part in commands[stage]]) == 0
    return commands


STAGES = ("ingest", "label", "cohort", "derive", "project", "shard")


def published(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), MemoryError()], ids=["disk", "memory"]
)
def test_w06_w12_every_stage_asks_to_be_run_again(prepared, tmp_path, monkeypatch, capfd, stage, failure):
    """The fault strikes where a file is made durable, the last moment before it gets its name."""
    command = [part.replace("OUT", str(tmp_path)) for part in prepared[stage]]

    def full(_):
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.files.os.fsync", full)
        assert main(command) == EXIT_TRANSIENT
    said = capfd.readouterr().err
    assert said.splitlines()[-1].startswith("ERROR: ") and "again" in said and "Traceback" not in said
    assert published(tmp_path) == []
    assert main(command) == 0 and published(tmp_path)


def _can_mount() -> bool:
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not _can_mount(), reason="this system lets nobody mount a small disk of his own")
@pytest.mark.parametrize(
    ("stage", "room"), [*((stage, "0") for stage in STAGES), ("ingest", "24k"), ("shard", "40k"), ("project", "4k")]
)
def test_w06_a_real_disk_that_is_full(prepared, tmp_path, stage, room):
    """By the command that the workflow runs, on a disk without room or with room for a part; HDF5 too must end in 75."""
    command = " ".join(f"'{part.replace('OUT', str(tmp_path))}'" for part in prepared[stage])
    fill = "" if room != "0" else f"head -c 64k /dev/zero > '{tmp_path}/fill' 2>/dev/null;"
    mount = f"mount -t tmpfs -o size={'20k' if room == '0' else room} tmpfs '{tmp_path}' || exit 1; {fill}"
    run = f"'{sys.executable}' -m pipeline {command}; code=$?; rm -f '{tmp_path}/fill'; find '{tmp_path}' -type f; exit $code"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount + run], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == EXIT_TRANSIENT, (done.returncode, done.stderr)
    assert "ERROR: " in done.stderr and "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr or "MB are free" in done.stderr
    assert done.stdout.split() == []
