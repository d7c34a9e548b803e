"""Little cohorts on disk, and the workflow run on them as a user runs it."""

from __future__ import annotations

import csv
import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import yaml

from tests.phantoms import labelled_phantom

ROOT = Path(__file__).parents[1]
IDS = {1: 51, 2: 116, 3: 5}
"""Phantom label -> totalsegmentator_v2 id: the ball is the heart, the rod the sternum, the plate the liver."""

CONFIG = {
    "name": "little",
    "seed": 7,
    "cohort": [
        {
            "source": "folder",
            "csv": "cohort.csv",
            "dataset": "little",
            "license": "CC0-1.0",
            "attribution": "made by the tests",
        }
    ],
    "grid": {"shape": 32, "spacing_mm": 3.0},
    "structures": ["heart", "sternum", "liver"],
    "simulators": {
        "parallel": {"beam": "parallel", "backend": "parallel", "detector_px": [32, 32], "pixel_mm": 3.0},
        "cone": {"beam": "cone", "detector_px": [32, 32], "pixel_mm": 4.5},
    },
    "runs": {},
    "report_splits": ["test"],
}


def write_nifti(path: Path, array_zyx: np.ndarray, affine: np.ndarray) -> None:
    """A plain NIfTI with sform and qform."""
    image = nib.Nifti1Image(np.ascontiguousarray(array_zyx.T), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    path.write_bytes(gzip.compress(image.to_bytes(), mtime=0))


def write_ct(folder: Path, name: str, *, shift=(0.0, 0.0, 0.0), seed: int = 0) -> dict[str, str]:
    """One labelled phantom CT (2.5 x 3 x 4 mm voxels, noisy) and its row of the cohort CSV."""
    ct, label = labelled_phantom((22, 26, 30), shift)
    noisy = ct + np.random.default_rng(seed).normal(0, 8, ct.shape)
    affine = np.array([[-2.5, 0, 0, 35], [0, 3.0, 0, -40], [0, 0, 4.0, 10 + seed], [0, 0, 0, 1.0]])
    ids = np.zeros_like(label)
    for value, number in IDS.items():
        ids[label == value] = number
    write_nifti(folder / f"{name}.nii.gz", np.rint(noisy).astype(np.int16), affine)
    write_nifti(folder / f"{name}-label.nii.gz", ids, affine)
    return {"case": name, "ct": f"{name}.nii.gz", "label": f"{name}-label.nii.gz"}


def good_rows(folder: Path) -> list[dict[str, str]]:
    """Three CTs a (train), b and c (test), and their rows."""
    rows = [write_ct(folder, name, shift=(0, n, -n), seed=n) for n, name in enumerate(("a", "b", "c"))]
    for row, split in zip(rows, ("train", "test", "test"), strict=True):
        row["split"] = split
    return rows


def write_cohort(folder: Path, rows: list[dict[str, str]], **changes) -> None:
    """The cohort CSV and config.yaml of an experiment in `folder`; `changes` replace top-level keys."""
    with (folder / "cohort.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, ["case", "ct", "label", "subject", "split"])
        writer.writeheader()
        writer.writerows(rows)
    write_config(folder, **changes)


def write_config(folder: Path, **changes) -> None:
    """config.yaml: the little experiment with some top-level keys replaced."""
    (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}), encoding="utf-8")


def command(folder: Path, *arguments: str) -> list[str]:
    """The user's command on an experiment folder."""
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    return [*snakemake, "--directory", str(folder), "--cores", "2", "--use-conda", *arguments]


def run(folder: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Run the workflow and return what it said."""
    return subprocess.run(
        command(folder, *arguments),
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def clean_environment() -> dict[str, str]:
    """The environment without what an outer Snakemake or test runner may have left in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SNAKEMAKE", "XR2CT", "PYTEST"))}


def jobs(done: subprocess.CompletedProcess) -> dict[str, int]:
    """Rule -> number of jobs, from the table that a dry run prints."""
    lines = iter((done.stdout + done.stderr).splitlines())
    counts = {}
    for line in lines:
        if line.startswith("Job stats"):
            next(lines), next(lines)
            for row in lines:
                if not row.strip():
                    break
                rule, count = row.split()
                counts[rule] = int(count)
    counts.pop("total", None)
    return counts


def kill_during(stage: str, folder: Path, *arguments: str) -> None:
    """Start the workflow and kill -9 its whole process tree while a job of the stage is at work."""
    process = subprocess.Popen(
        command(folder, *arguments),
        cwd=folder,
        env=clean_environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _wait_for_work(process, folder, stage)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def _wait_for_work(process, folder: Path, stage: str) -> None:
    """Until a job of the stage has opened its log and had a moment to start writing."""
    log = folder / "results/logs"
    seen = set(log.glob(f"{stage}*/**/*.log")) | set(log.glob(f"{stage}.log"))
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        logs = set(log.glob(f"{stage}*/**/*.log")) | set(log.glob(f"{stage}.log"))
        if logs - seen:
            time.sleep(0.4)
            return
        if process.poll() is not None:
            raise AssertionError(f"the run ended before stage {stage} began: {process.stderr.read().decode()}")
        time.sleep(0.02)
    raise AssertionError(f"stage {stage} did not start")
