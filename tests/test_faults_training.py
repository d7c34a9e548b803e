"""Training under fire: stopped, killed while saving, damaged or foreign checkpoints, NaN, no GPU, shards that go bad."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import xr2ct.descent
import xr2ct.train
from tests.test_faults_shards import Fuse
from tests.xr2ct.cohort import TINY, WINDOW, write_cohort
from xr2ct.cases import Cases
from xr2ct.checkpoint import load_checkpoint, sidecar
from xr2ct.descent import batch_of
from xr2ct.errors import UserError
from xr2ct.resume import PREVIOUS, RESUME, load_resume, save_resume
from xr2ct.train import train

ROOT = Path(__file__).parents[1]
OFTEN = TINY | {"save_minutes": 0.0, "ema": 0.5, "momentum": 0.9, "patience": 9}
WAITING = """
import sys
import xr2ct.descent as descent
batch_of = descent.batch_of
def waiting(step, *rest):
    if step == int(sys.argv[1]):
        print("at the step", flush=True)
        sys.stdin.readline()
    return batch_of(step, *rest)
descent.batch_of = waiting
from xr2ct.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    return {"train": write_cohort(folder, 5), "watch": write_cohort(folder, 1, split="validation", seed=1)}


def run(shards, out, settings=OFTEN, **changes) -> None:
    values = {"model": "spider", "simulator": "parallel", "shards": [shards["train"]], "watch": [shards["watch"]]}
    values |= {"out": out, "settings": settings, "window": WINDOW, "seed": 3, "device": "cpu", "threads": 1}
    train(**values | changes)


def arguments(shards, out, *more: str) -> list[str]:
    """The command line of `run`."""
    words = ["train", "--model", "spider", "--simulator", "parallel", "--shards", shards["train"]]
    words += ["--watch", shards["watch"], "--out", out, "--settings", json.dumps(OFTEN), "--seed", 3]
    return [str(word) for word in (*words, "--device", "cpu", "--threads", 1, *more)]


def at_step(monkeypatch, step: int, act) -> None:
    """Call `act` when the training fetches the cases of `step`."""

    def batch(now, *rest):
        if now == step:
            act()
        return batch_of(now, *rest)

    monkeypatch.setattr(xr2ct.descent, "batch_of", batch)


def stop_at(monkeypatch, shards, out, step: int) -> None:
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        at_step(patch, step, lambda: signal.raise_signal(signal.SIGTERM))
        run(shards, out)


def untimed(out: Path) -> list[dict]:
    with (out / "train.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def require_same(one: Path, other: Path) -> None:
    """The same train.csv but for the clock, and the same parameters to the bit."""
    assert untimed(one) == untimed(other)
    assert (one / "model.pt").read_bytes() == (other / "model.pt").read_bytes()


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """The undisturbed training."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run(shards, out)
    return out


@pytest.mark.slow
def test_t01_a_process_stopped_by_sigterm_and_resumed_ends_as_if_undisturbed(shards, whole, tmp_path):
    """Twice, at steps drawn at random; each time the process waits at its step until the signal is on its way."""
    first, second = sorted(int(step) for step in np.random.default_rng(7).choice(TINY["steps"], 2, replace=False))
    for step in (first, second):
        command = [sys.executable, "-c", WAITING, str(step), *arguments(shards, tmp_path / "run")]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert any(line == "at the step\n" for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate("\n", timeout=60)
        assert process.returncode == 128 + signal.SIGTERM and f"at step {step}; the same command" in said
        assert load_checkpoint(tmp_path / "run" / RESUME)["step"] == step
    run(shards, tmp_path / "run")
    require_same(tmp_path / "run", whole)
    assert not list((tmp_path / "run").glob("resume*"))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    payload = bytearray(path.read_bytes())
    payload[len(payload) // 3] ^= 16
    path.write_bytes(payload)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink, lambda path: sidecar(path).unlink()])
def test_t02_a_damaged_newest_state_falls_back_to_the_one_before(shards, whole, tmp_path, monkeypatch, damage, capsys):
    stop_at(monkeypatch, shards, tmp_path / "run", 4)
    steps = [load_checkpoint(tmp_path / "run" / name)["step"] for name in (RESUME, PREVIOUS)]
    assert steps == [4, 3]
    damage(tmp_path / "run" / RESUME)
    capsys.readouterr()
    run(shards, tmp_path / "run")
    out, error = capsys.readouterr()
    assert "Resuming at step 3 of 6." in out
    warned = re.search(rf"WARNING: \S*{RESUME}: .*\. Going on from \S*{PREVIOUS}\.\n", error)
    assert bool(warned) == (damage is not Path.unlink)  # moved away and not yet replaced is what a kill leaves
    require_same(tmp_path / "run", whole)


def test_t02_a_damaged_state_never_becomes_the_previous_one(shards, whole, tmp_path, monkeypatch):
    """Killed again before the next state is published, the good one must still be there."""
    stop_at(monkeypatch, shards, tmp_path / "run", 4)
    flip(tmp_path / "run" / RESUME)
    stop_at(monkeypatch, shards, tmp_path / "run", 3)  # the step it goes on from
    assert [load_checkpoint(tmp_path / "run" / name)["step"] for name in (RESUME, PREVIOUS)] == [3, 3]
    run(shards, tmp_path / "run")
    require_same(tmp_path / "run", whole)


def test_t02_two_damaged_states_are_said(shards, tmp_path, monkeypatch):
    stop_at(monkeypatch, shards, tmp_path / "run", 4)
    for name in (RESUME, PREVIOUS):
        cut(tmp_path / "run" / name)
    with pytest.raises(UserError, match=r"resume\.previous\.pt: sha256 is .*--fresh starts afresh"):
        run(shards, tmp_path / "run")
    run(shards, tmp_path / "run", fresh=True)


def state(step: int) -> dict:
    return {"identity": {"seed": 1}, "step": step, "state": {"weight": torch.full((50, 50), float(step))}}


def save_with(fuse: Fuse, out: Path) -> None:
    sys.setprofile(fuse)
    try:
        save_resume(out, state(3))
    finally:
        sys.setprofile(None)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_t03_killed_while_saving_a_whole_state_remains(tmp_path):
    """kill -9 at 60 moments from the first call to the last; afterwards saving and loading go on."""
    fuse, found = Fuse(), set()
    for out in (tmp_path / "warm", tmp_path / "count"):
        for step in (1, 2):
            save_resume(out, state(step))
        fuse = Fuse()
        save_with(fuse, out)
    for number, moment in enumerate(np.linspace(1, fuse.count - 5, 60, dtype=int)):
        out = tmp_path / str(number)
        for step in (1, 2):
            save_resume(out, state(step))
        saver = multiprocessing.get_context("fork").Process(target=save_with, args=(Fuse(int(moment)), out))
        saver.start()
        saver.join()
        assert saver.exitcode == -signal.SIGKILL
        loaded = load_resume(out, {"seed": 1})
        assert torch.equal(loaded["state"]["weight"], state(loaded["step"])["state"]["weight"])
        found.add((loaded["step"], (out / RESUME).exists()))
        save_resume(out, state(4))
        assert load_resume(out, {"seed": 1})["step"] == 4
    assert found == {(2, True), (2, False), (3, True)}  # before, between and after the exchange


def test_t04_a_missing_gpu_is_said_within_ten_seconds(tmp_path):
    words = ["train", "--model", "spider", "--simulator", "parallel", "--shards", "nowhere.h5", "--out", "run"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "xr2ct", *words, "--device", "cuda"],
        cwd=tmp_path,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10  # others use the cores too
    assert done.returncode == 2
    assert done.stderr.startswith("ERROR: device 'cuda' was asked for, but torch sees no CUDA device.")
    assert list(tmp_path.iterdir()) == []


def test_t05_a_loss_that_is_not_finite_stops_and_the_last_good_state_stays(shards, tmp_path):
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step \d; expected a finite number\. Lower learning"):
        run(shards, tmp_path / "run", settings=OFTEN | {"learning_rate": 1e30, "optimizer": "sgd"})
    saved = load_checkpoint(tmp_path / "run" / RESUME)
    assert all(value.isfinite().all() for value in saved["state"].values())
    assert not (tmp_path / "run" / "model.pt").exists()


def test_t05_a_last_step_to_nowhere_is_noticed_too(shards, tmp_path):
    with pytest.raises(UserError, match="parameters are not finite after the last step"):
        run(shards, tmp_path / "run", settings=TINY | {"steps": 1, "learning_rate": 3e38, "table_rate": 1e9}, watch=[])
    assert not (tmp_path / "run" / "model.pt").exists()


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


@pytest.mark.parametrize("name", [RESUME, "start.pt"])
def test_t06_code_in_a_checkpoint_is_refused_and_not_run(shards, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    out.mkdir()
    torch.save({"schema": "xr2ct/checkpoint", "schema_version": "1.0.0", "identity": Attack()}, out / name)
    sidecar(out / name).write_text(f"{hashlib.sha256((out / name).read_bytes()).hexdigest()}  {name}\n")
    with pytest.raises(UserError, match=rf"{name}: not a checkpoint"):
        run(shards, out, start=out / name if name == "start.pt" else None)
    assert not (tmp_path / "attacked").exists()


def test_t07_a_state_of_another_training_is_refused_unless_fresh(shards, whole, tmp_path, monkeypatch):
    stop_at(monkeypatch, shards, tmp_path / "run", 3)
    before = (tmp_path / "run" / RESUME).read_bytes()
    said = r"resume\.pt is of another run \({}\)\. Give --fresh \(or remove it\) to start afresh, or another --out"
    for changes, differing in (
        ({"seed": 4}, "seed 3 there, 4 here"),
        ({"settings": OFTEN | {"learning_rate": 1e-3}}, r"settings\.learning_rate 0\.005 there, 0\.001 here"),
        ({"limit": 2}, "limit 0 there, 2 here"),
    ):
        with pytest.raises(UserError, match=said.format(differing)):
            run(shards, tmp_path / "run", **changes)
    assert (tmp_path / "run" / RESUME).read_bytes() == before
    run(shards, tmp_path / "run", seed=4, fresh=True)
    run(shards, tmp_path / "other", seed=4)
    require_same(tmp_path / "run", tmp_path / "other")


@pytest.mark.parametrize("damage", [cut, flip])
def test_t08_a_shard_that_goes_bad_in_mid_training_is_named(tmp_path, monkeypatch, damage):
    """Too large to keep in memory, so that every step reads it."""
    files = {"train": write_cohort(tmp_path, 2), "watch": write_cohort(tmp_path, 1, split="validation", seed=1)}
    monkeypatch.setattr(xr2ct.train, "Cases", partial(Cases, cache_bytes=0))
    at_step(monkeypatch, 3, lambda: damage(files["train"]))
    with pytest.raises(
        UserError, match=r"train-0\.h5: /\S+ is missing or damaged \(.*\)\. Copy or make this shard again"
    ):
        run(files, tmp_path / "run")
    assert load_checkpoint(tmp_path / "run" / RESUME)["step"] in (2, 3)


def test_t08_a_shard_that_is_removed_is_named_once_and_read_to_the_end(tmp_path, monkeypatch, capsys):
    files = {"train": write_cohort(tmp_path, 2), "watch": write_cohort(tmp_path, 1, split="validation", seed=1)}
    run(files, tmp_path / "whole")
    monkeypatch.setattr(xr2ct.train, "Cases", partial(Cases, cache_bytes=0))
    at_step(monkeypatch, 3, files["train"].unlink)
    run(files, tmp_path / "run")
    said = capsys.readouterr()
    assert (said.out + said.err).count("train-0.h5 was removed") == 1
    require_same(tmp_path / "run", tmp_path / "whole")
    with pytest.raises(UserError, match=r"train-0\.h5: cannot be opened"):
        run(files, tmp_path / "again")
    assert math.isfinite(float(untimed(tmp_path / "run")[-1]["loss"]))
