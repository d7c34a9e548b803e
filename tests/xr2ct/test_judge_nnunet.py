"""The real nnU-Net, end to end on phantoms: what it learns, what it leaves behind, and that stopping changes nothing."""

import csv
import json
import os
import random
import signal

import numpy as np
import pytest

from tests.phantoms import AFFINE, STRUCTURES, phantom_case, write_phantom_shard
from tests.xr2ct.runs import write_run
from xr2ct.__main__ import main
from xr2ct.checkpoint import load_checkpoint
from xr2ct.judge import train as training
from xr2ct.judge.record import read_record
from xr2ct.shards import Shard

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # nnU-Net's own warnings are not ours to mend
torch = pytest.importorskip("torch")
pytest.importorskip("nnunetv2")

MACHINE = ("--device", "cpu", "--threads", "1")
ITERATIONS = 150


def cases(*names):
    """Phantoms shifted at random, the same for the same name."""
    shifts = {name: random.Random(name).choices(np.linspace(-0.04, 0.04, 9), k=3) for name in names}
    return [phantom_case(name, shape=(24, 28, 32), shift=tuple(shift)) for name, shift in shifts.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    write_phantom_shard(folder / "train.h5", cases("a", "b", "c", "d"), split="train")
    write_phantom_shard(folder / "test.h5", cases("v", "w"), split="test")
    return folder


def train(folder, out, iterations, *more):
    shards = folder / "train.h5"
    arguments = ("judge-train", "--shards", shards, "--out", out, "--iterations", iterations, *MACHINE, *more)
    return main([str(argument) for argument in arguments])


def nnunet_variables():
    return {name: value for name, value in os.environ.items() if name.lower().startswith("nnunet")}


@pytest.fixture(scope="module")
def trained(folder):
    """A judge trained once, and what was there before and after."""
    before, there = nnunet_variables(), set(folder.iterdir())
    assert train(folder, folder / "judge", ITERATIONS) == 0
    assert nnunet_variables() == before
    assert set(folder.iterdir()) - there == {folder / "judge"}
    return folder / "judge"


def test_the_folder_holds_the_judge_and_nothing_else(trained, folder, capsys):
    names = {"judge.json", "weights.pt", "weights.pt.sha256", "plans.json", "dataset.json", "train.csv"}
    assert {path.name for path in trained.iterdir()} == names
    record = read_record(trained)
    assert (record.structures, record.cases, record.left_out) == (STRUCTURES, ("a", "b", "c", "d"), {})
    texts = [(trained / name).read_text() for name in names if not name.startswith("weights.pt")]
    assert not any(str(folder) in text for text in texts)
    written = (trained / "weights.pt").stat().st_mtime_ns
    assert train(folder, trained, ITERATIONS) == 0
    assert "is already trained" in capsys.readouterr().out and (trained / "weights.pt").stat().st_mtime_ns == written


def rows_of(path):
    with path.open(newline="") as file:
        return {(row["case"], row["metric"], row["structure"]): row for row in csv.DictReader(file)}


def test_it_finds_the_structures_and_the_same_of_a_perfect_reconstruction_but_not_of_a_mirrored_one(trained, folder):
    shard = Shard(folder / "test.h5")
    write_run(folder / "runs" / "truth", shard)
    write_run(folder / "runs" / "mirrored", shard, lambda case: (case.ct_hu[:, :, ::-1], None))
    found = {}
    for name in ("true CT", "truth", "mirrored"):
        options = [] if name == "true CT" else ["--reconstructions", str(folder / "runs" / name / "index.json")]
        out = folder / "scores.csv"
        arguments = ["judge", "--judge", str(trained), "--shards", str(folder / "test.h5"), "--out", str(out), *MACHINE]
        assert main([*arguments, *options]) == 0
        found[name] = rows_of(out)
    ceiling = {key: float(row["value"]) for key, row in found["true CT"].items()}
    assert {row["model"] for row in found["true CT"].values()} == {"true CT"}
    for name in ("ball", "rod"):
        assert ceiling["v", "nnunet-dice", name] > 0.8 and ceiling["w", "nnunet-hd95", name] <= 6
    assert all(row["value"] == found["true CT"][key]["value"] for key, row in found["truth"].items())
    # the ball lies on the patient's left: the voxels of the true one are water in the mirrored CT
    assert float(found["mirrored"]["v", "nnunet-dice", "ball"]["value"]) < 0.3


@pytest.mark.parametrize(("size", "patch"), [("small", 48), ("medium", 64)])
def test_a_size_sees_patches_of_its_own(size, patch, tmp_path):
    write_phantom_shard(tmp_path / "train.h5", [phantom_case("large", shape=(72, 72, 72))], split="train")
    assert train(tmp_path, tmp_path / "judge", 1, "--size", size) == 0
    plans = json.loads((tmp_path / "judge" / "plans.json").read_text())
    assert plans["configurations"]["3d_fullres"]["patch_size"] == [patch] * 3


def test_a_ct_that_is_zero_everywhere_has_no_structures(trained):
    from xr2ct.judge.registry import open_judge

    judge = open_judge(str(trained), STRUCTURES, torch.device("cpu"))
    assert not judge.segment(np.zeros((24, 28, 32), np.int16), AFFINE).any()
    assert not nnunet_variables()


def weights(folder):
    return load_checkpoint(folder / "weights.pt")["state"]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_stopped_training_ends_where_one_that_was_not_stopped_does(folder, monkeypatch):
    """SIGTERM in the first of two epochs."""
    assert train(folder, folder / "whole", 50) == 0
    from xr2ct.judge.nnunet_trainer import JudgeTrainer

    steps, step = [], JudgeTrainer.train_step

    def counted(trainer, batch):
        steps.append(len(steps))
        if len(steps) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer, batch)

    monkeypatch.setattr(JudgeTrainer, "train_step", counted)
    stopped = folder / "stopped"
    with pytest.raises(SystemExit) as stop:
        train(folder, stopped, 50)
    assert stop.value.code == 128 + signal.SIGTERM and len(steps) == 25
    assert not (stopped / "judge.json").exists() and (stopped / "resume.pt").exists()
    monkeypatch.setattr(training, "prepare", None)  # what is prepared is not prepared again
    assert train(folder, stopped, 50) == 0 and len(steps) == 50
    assert not (stopped / "nnunet").exists() and not (stopped / "resume.pt").exists()
    ends = [load_checkpoint(folder / name / "weights.pt")["state"] for name in ("whole", "stopped")]
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    losses = [
        [row["loss"] for row in csv.DictReader((folder / name / "train.csv").read_text().splitlines())]
        for name in ("whole", "stopped")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 2


def test_an_epoch_is_a_function_of_seed_and_epoch():
    from xr2ct.judge.nnunet_trainer import seed_everything

    def drawn(seed, epoch):
        seed_everything(seed, epoch)
        return random.random(), np.random.rand(), torch.rand(1).item()

    draws = [drawn(*pair) for pair in ((1, 0), (1, 1), (2, 0), (1, 0))]
    assert draws[0] == draws[3] and all(len(set(numbers)) == 3 for numbers in zip(*draws, strict=True))
