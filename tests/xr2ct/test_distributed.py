"""Several processes are one training: the same loss, gradient and parameters as a single process, files written once."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import xr2ct.descent
import xr2ct.distributed
import xr2ct.journal
from tests.xr2ct.cohort import TINY, WINDOW, write_cohort
from xr2ct.checkpoint import load_checkpoint
from xr2ct.descent import require_feasible
from xr2ct.distributed import largest_over_processes, rank, sum_gradients, sum_over_processes, world_size
from xr2ct.errors import UserError
from xr2ct.models.spider import Spider
from xr2ct.train import train
from xr2ct.training_settings import TrainingSettings

ROOT = Path(__file__).parents[2]
SUMS = """
import torch
from xr2ct import distributed

distributed.start(torch.device("cpu"))
rank = distributed.rank()
assert distributed.world_size() == 2 and rank in (0, 1)
points = torch.tensor([1.0, 2.0, 3.0, 5.0])
scale = torch.nn.Parameter(torch.tensor(0.5))
unused = torch.nn.Parameter(torch.ones(2, 3))
mine = points[rank::2]
total = distributed.sum_over_processes((scale * mine).sum())
count = distributed.sum_over_processes(torch.tensor(len(mine)))
loss = (total / count) ** 2
assert loss.item() == (0.5 * 11 / 4) ** 2, loss
(loss + (unused.sum() * 3 if rank else 0)).backward()
distributed.sum_gradients([scale, unused])
assert abs(scale.grad.item() - 2 * 0.5 * (11 / 4) ** 2) < 1e-6, scale.grad
assert unused.grad.tolist() == [[3.0] * 3] * 2
assert distributed.largest_over_processes(15 * rank, torch.device("cpu")) == 15
norm = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
try:
    distributed.share_norms(norm, torch.device("cpu"))
except Exception as error:
    assert "works on GPUs only" in str(error), error
else:
    raise AssertionError("batch normalisation was not refused")
distributed.stop()
assert not distributed.joined()
"""


def torchrun(*arguments, processes=2, timeout=120):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    words = [*command, *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout)


def test_alone_everything_is_the_identity():
    value = torch.tensor([1.0, 2.0], requires_grad=True)
    assert sum_over_processes(value) is value
    assert (rank(), world_size(), largest_over_processes(15, torch.device("cpu"))) == (0, 1, 15)
    sum_gradients([torch.nn.Parameter(torch.ones(2))])


def test_a_parameter_that_this_process_did_not_need_counts_as_zero(monkeypatch):
    """The other process, played by a stand-in, has the gradients 5 and 7."""
    monkeypatch.setattr(xr2ct.distributed, "joined", lambda: True)
    monkeypatch.setattr(xr2ct.distributed.dist, "all_reduce", lambda flat: flat.add_(torch.tensor([5.0, 7.0, 7.0])))
    needed, unused = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(2))
    needed.grad = torch.full((1,), 2.0)
    sum_gradients([needed, unused])
    assert (needed.grad.tolist(), unused.grad.tolist()) == ([7.0], [7.0, 7.0])


@pytest.mark.slow
def test_sums_and_gradients_of_two_processes_are_those_of_one(tmp_path):
    (tmp_path / "sums.py").write_text(SUMS)
    done = torchrun(tmp_path / "sums.py")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    return {"train": write_cohort(folder, 5), "watch": write_cohort(folder, 1, split="validation", seed=1)}


SETTINGS = TINY | {"batch": 3, "optimizer": "sgd", "learning_rate": 0.05, "clip": 1.0}


@pytest.fixture(scope="module")
def alone(shards, tmp_path_factory):
    """The training by a single process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    files = {"shards": [shards["train"]], "watch": [shards["watch"]]}
    train(model="spider", simulator="parallel", **files, out=out, settings=SETTINGS, window=WINDOW, device="cpu")
    return out


def command(shards, out):
    words = ["train", "--model", "spider", "--simulator", "parallel", "--shards", shards["train"]]
    words += ["--watch", shards["watch"], "--settings", json.dumps(SETTINGS), "--out", out]
    return [*words, "--device", "cpu", "--threads", 1]


def losses(out):
    with (out / "train.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def require_equal(one, other):
    """The same files, losses and parameters within rounding."""
    names = [sorted(path.name for path in out.rglob("*")) for out in (one, other)]
    assert names[0] == names[1]
    assert losses(other) == pytest.approx(losses(one), rel=1e-4)
    states = [load_checkpoint(out / "model.pt")["state"] for out in (one, other)]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
def test_two_processes_train_the_model_of_one(shards, alone, tmp_path):
    """Batch 3 in unequal parts: a mean over each part instead of sums, or twice the gradient, ends elsewhere."""
    done = torchrun("-m", "xr2ct", *command(shards, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    require_equal(alone, tmp_path / "run")


AT_STEP = """
import os, signal, sys
import xr2ct.descent as descent
batch_of = descent.batch_of
def acting(step, *rest):
    if step == 3 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.{})
    return batch_of(step, *rest)
descent.batch_of = acting
from xr2ct.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_one_process_that_is_stopped_stops_all_at_the_same_step(shards, alone, tmp_path):
    (tmp_path / "stopped.py").write_text(AT_STEP.format("SIGTERM"))
    done = torchrun(tmp_path / "stopped.py", *command(shards, tmp_path / "run"))
    assert done.returncode != 0 and "Stopped by signal 15 at step 3" in done.stdout
    assert load_checkpoint(tmp_path / "run" / "resume.pt")["step"] == 3
    files = {"shards": [shards["train"]], "watch": [shards["watch"]], "out": tmp_path / "run"}
    train(model="spider", simulator="parallel", **files, settings=SETTINGS, window=WINDOW, device="cpu")
    require_equal(alone, tmp_path / "run")


@pytest.mark.slow
def test_a_process_that_dies_ends_all(shards, tmp_path):
    (tmp_path / "dying.py").write_text(AT_STEP.format("SIGKILL"))
    done = torchrun(tmp_path / "dying.py", *command(shards, tmp_path / "run"))
    assert done.returncode != 0 and not (tmp_path / "run" / "model.pt").exists()


def test_fewer_cases_than_processes_are_refused(monkeypatch):
    monkeypatch.setattr(xr2ct.descent, "world_size", lambda: 3)
    with pytest.raises(UserError, match=r"batch is 2 for 3 processes; expected a case for each\. Raise batch or start"):
        require_feasible(TrainingSettings(batch=2), [])
    require_feasible(TrainingSettings(batch=3), [])


def test_each_process_takes_its_part_of_the_batch_and_only_the_first_writes(shards, tmp_path, monkeypatch, capsys):
    taken, loss = [], Spider.loss
    monkeypatch.setattr(Spider, "loss", lambda self, cases, *rest: taken.append(len(cases)) or loss(self, cases, *rest))
    monkeypatch.setattr(xr2ct.descent, "world_size", lambda: 2)
    for module in (xr2ct.descent, xr2ct.journal, xr2ct.distributed):
        monkeypatch.setattr(module, "rank", lambda: 1)
    settings = SETTINGS | {"save_minutes": 0.0}
    files = {"shards": [shards["train"]], "watch": [shards["watch"]], "out": tmp_path / "run"}
    train(
        model="spider", simulator="parallel", **files, settings=settings, window=WINDOW, device="cpu", tensorboard=True
    )
    assert taken == [1] * 6  # of three cases the second
    assert list((tmp_path / "run").iterdir()) == []
    assert capsys.readouterr() == ("", "")
