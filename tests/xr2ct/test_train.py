"""Training: what it publishes, that it repeats and resumes to the bit, and what it refuses."""

import csv
import signal
from dataclasses import replace
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import xr2ct.descent
import xr2ct.train
from tests.xr2ct.cohort import TINY, WINDOW, write_cohort
from xr2ct.__main__ import main
from xr2ct.average import Average, shown
from xr2ct.cases import Cases
from xr2ct.checkpoint import load_checkpoint
from xr2ct.descent import batch_of
from xr2ct.encoding import BACKENDS
from xr2ct.errors import UserError
from xr2ct.models.model import Model, Trainable
from xr2ct.models.registry import MODELS
from xr2ct.models.spider import Spider
from xr2ct.shards import open_shards
from xr2ct.train import build_trained, train
from xr2ct.training_settings import TrainingSettings, learning_rate, total_steps


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    return {"train": write_cohort(folder, 5), "watch": write_cohort(folder, 1, split="validation", seed=1)}


def run(files, out, model="spider", settings=TINY, **changes):
    values = {
        "model": model,
        "simulator": "parallel",
        "shards": [files["train"]],
        "watch": [files["watch"]],
        "out": out,
        "settings": settings,
        "window": WINDOW,
        "seed": 3,
        "device": "cpu",
        "threads": None,
    }
    train(**values | changes)


FILES = ["model.pt", "model.pt.sha256", "train.csv"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def rows_of(folder):
    with (folder / "train.csv").open() as file:
        return list(csv.DictReader(file))


def stop_at(monkeypatch, step, number=signal.SIGTERM):
    """Send this process `number` when the training fetches the cases of `step`."""

    def batch(now, *rest):
        if now == step:
            signal.raise_signal(number)
        return batch_of(now, *rest)

    monkeypatch.setattr(xr2ct.descent, "batch_of", batch)


def test_a_backend_of_gpus_is_refused_on_a_cpu_even_where_its_package_is(shards, tmp_path, monkeypatch):
    monkeypatch.setitem(BACKENDS, "tinycudann", replace(BACKENDS["tinycudann"], missing=lambda: ""))
    with pytest.raises(
        UserError, match="'tinycudann' is not present here: it computes on cuda only; .* setting 'backend'"
    ):
        run(shards, tmp_path / "run", settings=TINY | {"backend": "tinycudann"})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_and_predicts_on_the_cases_grid(shards, tmp_path, model):
    run(shards, tmp_path / "run", model, TINY if model == "spider" else {})
    assert names(tmp_path / "run") == [*FILES, *(["watch"] if model == "spider" else [])]
    trained, task = build_trained(load_checkpoint(tmp_path / "run" / "model.pt"))
    assert isinstance(trained, Model)
    assert isinstance(trained, Trainable) == (model == "spider")
    example = Cases(open_shards([shards["watch"]]), "parallel")[0]
    prediction = trained.predict(example.xray, example.case.affine)
    assert prediction.ct_hu.shape == example.case.ct_hu.shape == task.shape
    assert prediction.label is None or prediction.label.max() < len(task.structures)
    assert float(rows_of(tmp_path / "run")[-1]["watch_psnr_db"]) > 5


def test_the_log_has_a_row_per_log_steps_and_scores_per_watch_steps(shards, tmp_path, capsys):
    run(shards, tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    last = f"watched PSNR {float(rows[-1]['watch_psnr_db']):.2f} dB, Dice {float(rows[-1]['watch_dice']):.3f}"
    assert f"{tmp_path / 'run' / 'model.pt'}: spider, 6 steps on 5 cases, {last}" in capsys.readouterr().out
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert [bool(row["watch_psnr_db"]) for row in rows] == [False, True, True]
    assert all(0 < float(row["loss_dice"]) < 1 for row in rows)
    assert float(rows[0]["learning_rate"]) > float(rows[1]["learning_rate"]) > float(rows[2]["learning_rate"]) > 0


def test_the_same_command_gives_the_same_bytes_and_another_seed_does_not(shards, tmp_path):
    for number, (name, seed) in enumerate((("a", 3), ("b", 3), ("c", 4))):
        torch.manual_seed(number)  # must not matter
        run(shards, tmp_path / name, seed=seed)
    a, b, c = ((tmp_path / name / "model.pt").read_bytes() for name in "abc")
    assert a == b != c


def test_training_leaves_the_callers_random_numbers_alone(shards, tmp_path):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    run(shards, tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("step", "changes"),
    [
        (0, {}),
        (3, {"optimizer": "sgd", "clip": 0.1, "schedule": "exponential"}),
        (3, {"ema": 0.9, "optimizer": "adam", "weight_decay": 0.01}),
        (4, {"patience": 5, "watch_steps": 1, "ema": 0.5, "learning_rate": 0.2}),
        (5, {"freeze": ["encoder"]}),
        (3, {"norm": "batch"}),
        (3, {"norm": "batch", "ema": 0.5, "learning_rate": 0.05}),
    ],
)
def test_a_stopped_training_ends_as_if_it_had_not_been_stopped(shards, tmp_path, monkeypatch, step, changes, capsys):
    settings = TINY | changes
    run(shards, tmp_path / "whole", settings=settings)
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(SystemExit) as stopped:
            run(shards, tmp_path / "stopped", settings=settings)
    assert stopped.value.code == 143
    assert "resume.pt" in names(tmp_path / "stopped")
    assert "model.pt" not in names(tmp_path / "stopped")

    run(shards, tmp_path / "stopped", settings=settings)
    assert f"Resuming at step {step} of 6." in capsys.readouterr().out
    assert names(tmp_path / "stopped") == [*FILES, "watch"]
    whole, resumed = (tmp_path / name / "model.pt" for name in ("whole", "stopped"))
    assert whole.read_bytes() == resumed.read_bytes()
    untimed = [
        [{key: value for key, value in row.items() if key != "seconds"} for row in rows_of(tmp_path / name)]
        for name in ("whole", "stopped")
    ]
    assert untimed[0] == untimed[1]


def test_ctrl_c_saves_too_and_the_handlers_are_put_back(shards, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop_at(monkeypatch, 2, signal.SIGINT)
    with pytest.raises(SystemExit) as stopped:
        run(shards, tmp_path / "run")
    assert stopped.value.code == 130
    assert load_checkpoint(tmp_path / "run" / "resume.pt")["step"] == 2
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_resume_file_of_other_settings_is_refused_and_kept(shards, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(SystemExit):
            run(shards, tmp_path / "run")
    with pytest.raises(
        UserError, match=r"resume\.pt is of another run \(settings\.hidden 8 there, 16 here\)\. Give --fresh"
    ):
        run(shards, tmp_path / "run", settings=TINY | {"hidden": 16})
    assert "resume.pt" in names(tmp_path / "run")


def test_a_damaged_resume_file_is_refused(shards, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(SystemExit):
            run(shards, tmp_path / "run")
    payload = bytearray((tmp_path / "run" / "resume.pt").read_bytes())
    payload[len(payload) // 2] ^= 4
    (tmp_path / "run" / "resume.pt").write_bytes(payload)
    with pytest.raises(UserError, match=r"resume\.pt: sha256 .* --fresh starts afresh"):
        run(shards, tmp_path / "run")


def test_a_finished_training_is_not_repeated_but_another_is(shards, tmp_path, capsys):
    run(shards, tmp_path / "run", "mean", {})
    first = (tmp_path / "run" / "model.pt").stat().st_mtime_ns
    run(shards, tmp_path / "run", "mean", {})
    assert "already trained" in capsys.readouterr().out
    assert (tmp_path / "run" / "model.pt").stat().st_mtime_ns == first
    run(shards, tmp_path / "run", "mean", {}, shards=[shards["watch"]])
    assert (tmp_path / "run" / "model.pt").stat().st_mtime_ns != first


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(shards, tmp_path, monkeypatch):
    loss, calls = Spider.loss, []

    def loss_until_nan(self, examples, random):
        calls.append(1)
        parts = loss(self, examples, random)
        return parts if len(calls) < 4 else parts | {"loss": parts["loss"] * float("nan")}

    monkeypatch.setattr(Spider, "loss", loss_until_nan)
    with pytest.raises(UserError, match=r"the loss is nan at step 3; expected a finite number\. Lower learning_rate"):
        run(shards, tmp_path / "run", settings=TINY | {"save_minutes": 0.0})
    saved = load_checkpoint(tmp_path / "run" / "resume.pt")
    assert saved["step"] == 2
    assert all(value.isfinite().all() for value in saved["state"].values())
    assert "model.pt" not in names(tmp_path / "run")


def test_a_run_without_watched_cases_has_no_scores(shards, tmp_path):
    run(shards, tmp_path / "run", "mean", {}, watch=[])
    assert rows_of(tmp_path / "run")[0]["watch_psnr_db"] == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "spidre"}, r"model 'spidre'.*Did you mean 'spider'\?"),
        ({"settings": {"stepz": 3}}, r"setting of model spider 'stepz'.*Did you mean 'steps'\?"),
        ({"settings": TINY | {"optimizer": "adamax"}}, r"optimizer 'adamax'.*one of: adamw, adam, sgd"),
        ({"settings": TINY | {"schedule": "cosin"}}, r"schedule 'cosin'.*Did you mean 'cosine'\?"),
        ({"settings": TINY | {"dice": "macro"}}, r"dice 'macro'.*micro, class"),
        ({"simulator": "paralel"}, r"simulator 'paralel'.*cone, parallel.*Did you mean 'parallel'\?"),
        ({"window": (1500.0, -1000.0)}, r"window is 1500 to -1000 HU; expected the low end first"),
        ({"device": "cuda"}, r"device 'cuda'.*no CUDA device.*--device cpu"),
        ({"window": (-1000.0, float("inf"))}, r"window is -1000 to inf HU; expected the low end first"),
        ({"seed": -1}, r"seed is -1; expected 0 or more"),
        ({"seed": 2**63}, r"seed is 9223372036854775808; expected 0 or more, below 2\^63"),
        ({"threads": 0}, r"threads is 0; expected 1 or more\. Leave --threads out"),
        ({"limit": -1}, r"limit is -1; expected 1 to 5, the cases there are, or 0"),
        ({"limit": 6}, r"limit is 6; expected 1 to 5"),
        ({"watch": [], "settings": TINY | {"patience": 2}}, r"patience is 2, but no case is watched\. Give --watch"),
        ({"settings": TINY | {"freeze": ["decodr"]}}, r"part to freeze 'decodr'.*Did you mean 'decoder'\?"),
        ({"settings": TINY | {"freeze": ["encoder", "decoder", "position"]}}, r"nothing is left to train"),
        ({"shards": []}, r"no case in the training shards"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_said_before_anything_is_written(shards, tmp_path, changes, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=message):
        run(shards, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists() or names(tmp_path / "run") == []


def test_shards_that_do_not_fit_together_are_named(shards, tmp_path):
    other = write_cohort(tmp_path, 1, seed=9, shape=(20, 24, 26))
    with pytest.raises(UserError, match=r"train-9\.h5: grid .*\(20, 24, 26\); expected \(20, 24, 28\) as in .*train-0"):
        run(shards, tmp_path / "run", shards=[shards["train"], other])
    with pytest.raises(UserError, match=r"train-9\.h5: grid"):
        run(shards, tmp_path / "run", watch=[other])


def test_a_shard_given_twice_is_refused_also_by_another_path(shards, tmp_path):
    (tmp_path / "link.h5").symlink_to(shards["train"])
    (tmp_path / "copy.h5").write_bytes(shards["train"].read_bytes())
    for again in (shards["train"], tmp_path / "link.h5", tmp_path / "copy.h5"):
        words = rf"{again.name}: case 'train0' occurs in \S+{shards['train'].name} already; .* Give every shard once"
        with pytest.raises(UserError, match=words):
            run(shards, tmp_path / "run", shards=[shards["train"], again])
    assert not (tmp_path / "run").exists()


def test_auto_takes_the_cpu_where_there_is_no_gpu_and_says_so(shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run(shards, tmp_path / "run", "mean", {}, device="auto", threads=1)
    assert capsys.readouterr().out.splitlines()[0] == "No CUDA device: computing on the CPU with 1 threads."


def test_every_option_of_the_command_reaches_the_training(monkeypatch):
    given = {}
    monkeypatch.setattr(xr2ct.train, "train", lambda **values: given.update(values))
    words = "--model spider --simulator cone --shards a b --watch c --out o --window -900 900 --seed 4 --start s.pt"
    words += " --limit 2 --fresh --tensorboard --device cpu --threads 2"
    assert main(["train", *words.split(), "--settings", '{"steps": 1}']) == 0
    assert given == {
        "model": "spider",
        "simulator": "cone",
        "shards": [Path("a"), Path("b")],
        "watch": [Path("c")],
        "out": Path("o"),
        "settings": {"steps": 1},
        "window": (-900.0, 900.0),
        "seed": 4,
        "start": Path("s.pt"),
        "limit": 2,
        "fresh": True,
        "tensorboard": True,
        "device": "cpu",
        "threads": 2,
    }
    assert set(given) == set(signature(train).parameters)


def test_every_epoch_visits_every_case_once_in_another_order():
    visited = np.concatenate([batch_of(step, 6, 4, seed=2) for step in range(3)])
    assert sorted(visited[:6]) == sorted(visited[6:]) == list(range(6))
    assert visited[:6].tolist() != visited[6:].tolist()


def test_limit_trains_on_the_first_cases_only(shards, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(xr2ct.descent, "batch_of", lambda step, n, *rest: seen.append(n) or batch_of(step, n, *rest))
    run(shards, tmp_path / "run", limit=2)
    assert set(seen) == {2}
    assert load_checkpoint(tmp_path / "run" / "model.pt")["identity"]["limit"] == 2
    run(shards, tmp_path / "mean", "mean", {}, limit=1)
    trained, task = build_trained(load_checkpoint(tmp_path / "mean" / "model.pt"))
    first = Cases(open_shards([shards["train"]]), "parallel")[0]
    answer = trained.predict(first.xray, first.case.affine).ct_hu
    assert np.array_equal(answer, first.case.ct_hu.clip(*task.window_hu))


def test_fresh_trains_again_and_removes_what_was_left(shards, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(SystemExit):
            run(shards, tmp_path / "run")
    (tmp_path / "run" / "watch" / "step-000999.png").write_bytes(b"of longer ago")
    run(shards, tmp_path / "run", fresh=True)
    assert names(tmp_path / "run" / "watch") == ["step-000004.png", "step-000006.png"]
    first = (tmp_path / "run" / "model.pt").stat().st_mtime_ns
    run(shards, tmp_path / "run", fresh=True)
    assert (tmp_path / "run" / "model.pt").stat().st_mtime_ns != first


def test_the_checkpoint_knows_how_its_cases_were_seen(shards, tmp_path):
    run(shards, tmp_path / "run", "mean", {})
    first = Cases(open_shards([shards["train"]]), "parallel")[0]
    geometry = load_checkpoint(tmp_path / "run" / "model.pt")["geometry"]
    assert np.array_equal(geometry["projection"], first.xray.projection)


@pytest.mark.parametrize("ema", [0.25, 0.9])
def test_the_average_of_the_parameters_is_what_is_saved(shards, tmp_path, monkeypatch, ema):
    """By hand: decay min(ema, (1 + step) / (10 + step)) of parameters noted after every step."""
    noted, step_down = [], xr2ct.descent.step_down

    def note(state, *rest):
        if not noted:
            noted.append(state.model.state_dict()["unet.down.0.0.weight"].clone())
        step_down(state, *rest)
        noted.append(state.model.state_dict()["unet.down.0.0.weight"].clone())

    monkeypatch.setattr(xr2ct.descent, "step_down", note)
    run(shards, tmp_path / "run", settings=TINY | {"ema": ema, "learning_rate": 0.05})
    expected = noted[0]
    for step, value in enumerate(noted[1:]):
        decay = min(ema, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    saved = load_checkpoint(tmp_path / "run" / "model.pt")["state"]["unet.down.0.0.weight"]
    torch.testing.assert_close(saved, expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(saved, noted[-1])


def test_the_statistics_of_batch_normalisation_are_averaged_like_the_parameters():
    """Decays 1 / 10 and 2 / 11 of the first two steps; what counts batches is not averaged."""
    norm = nn.BatchNorm1d(1)
    average = Average(norm, 0.5)
    for step, mean in enumerate((10.0, 21.0)):
        norm.running_mean.fill_(mean)
        norm.num_batches_tracked += 1
        average.update(norm, step)
    with shown(norm, average):
        assert norm.running_mean.item() == pytest.approx(2 / 11 * 9 + 9 / 11 * 21)
        assert norm.num_batches_tracked == 2 and not norm.training
    assert norm.running_mean == 21 and norm.running_var == 1 and norm.training


def test_patience_ends_the_training_with_its_best_state(shards, tmp_path, monkeypatch, capsys):
    scores = iter([10.0, 12.0, 12.0, 11.0, 13.0])
    states = []

    def watch_scores(*_):
        return {"watch_psnr_db": next(scores)}

    step_down = xr2ct.descent.step_down

    def note(state, *rest):
        step_down(state, *rest)
        states.append({name: value.clone() for name, value in state.model.state_dict().items()})

    monkeypatch.setattr(xr2ct.descent, "watch_scores", watch_scores)
    monkeypatch.setattr(xr2ct.descent, "step_down", note)
    run(shards, tmp_path / "run", settings=TINY | {"patience": 2, "watch_steps": 1})
    assert "No better PSNR since step 2 (12.00 dB): ending here." in capsys.readouterr().out
    assert [row["step"] for row in rows_of(tmp_path / "run")] == ["1", "2", "3", "4"]
    saved = load_checkpoint(tmp_path / "run" / "model.pt")["state"]
    assert all(torch.equal(value, states[1][name]) for name, value in saved.items())
    assert not all(torch.equal(value, states[3][name]) for name, value in saved.items())


def test_the_best_state_is_judged_and_kept_with_the_averaged_parameters(shards, tmp_path, monkeypatch):
    """Best after step 2 of 4; its average by hand: decays 1 / 10 and 2 / 11 after the steps 0 and 1."""
    name, scores, noted, judged = "unet.down.0.0.weight", iter([10.0, 12.0, 11.0, 11.5]), [], []
    step_down, predict = xr2ct.descent.step_down, Spider.predict

    def note(state, *rest):
        noted.append(state.model.state_dict()[name].clone())
        step_down(state, *rest)

    def judge(self, *rest):
        judged.append(self.state_dict()[name].clone())
        return predict(self, *rest)

    monkeypatch.setattr(xr2ct.descent, "step_down", note)
    monkeypatch.setattr(Spider, "predict", judge)
    monkeypatch.setattr(xr2ct.descent, "watch_scores", lambda *_: {"watch_psnr_db": next(scores)})
    changes = {"patience": 2, "watch_steps": 1, "ema": 0.9, "learning_rate": 0.05}
    run(shards, tmp_path / "run", settings=TINY | changes)
    assert len(noted) == 4
    first = 1 / 10 * noted[0] + 9 / 10 * noted[1]
    expected = 2 / 11 * first + 9 / 11 * noted[2]
    torch.testing.assert_close(judged[1], expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(judged[1], noted[2])
    assert torch.equal(load_checkpoint(tmp_path / "run" / "model.pt")["state"][name], judged[1])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("steps", -1, "1 or more"),
        ("batch", 0, "1 or more"),
        ("epochs", -2, "0 or more"),
        ("learning_rate", 0.0, "a number above 0"),
        ("learning_rate", float("nan"), "a number above 0"),
        ("clip", -1.0, "0 or more"),
        ("weight_decay", -1e-3, "0 or more"),
        ("momentum", 1.0, "0 or more and below 1"),
        ("ema", 1.0, "0 or more and below 1"),
        ("final_rate", 0.0, "a share above 0 and up to 1"),
        ("log_steps", 0, "1 or more"),
        ("watch_steps", 0, "1 or more"),
        ("halve_epochs", 0, "1 or more"),
        ("patience", -1, "0 or more"),
        ("save_minutes", -1.0, "0 or more"),
        ("table_rate", float("inf"), "0 or more"),
    ],
)
def test_settings_without_sense_are_refused_in_words(name, value, expected):
    with pytest.raises(UserError, match=rf"setting '{name}' is {value}; expected {expected}"):
        TrainingSettings(**{name: value})


def test_steps_of_epochs_are_counted_in_whole_numbers():
    assert total_steps(11, TrainingSettings(epochs=100, batch=5)) == 220
    assert total_steps(11, TrainingSettings(epochs=1, batch=5)) == 3


def test_steps_and_rates_of_the_printed_recipe():
    paper = TrainingSettings(epochs=500, batch=4, schedule="halving", learning_rate=1e-3)
    assert total_steps(100, paper) == 12500
    assert [learning_rate(step, 100, paper) for step in (0, 2499, 2500, 5000)] == [1e-3, 1e-3, 5e-4, 2.5e-4]
    cosine = TrainingSettings(steps=100, learning_rate=2.0)
    assert [learning_rate(step, 7, cosine) for step in (0, 50, 100)] == pytest.approx([2, 1, 0])
    lineage = TrainingSettings(epochs=400, batch=4, schedule="exponential", learning_rate=0.01)
    assert [learning_rate(step, 8, lineage) for step in (0, 400, 800)] == pytest.approx([1e-2, 3.1623e-4, 1e-5], 1e-4)
