"""What a training shows: pictures with the truth above the prediction and TensorBoard's scalars."""

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

import xr2ct.descent
from tests.xr2ct.cohort import TINY, WINDOW, write_cohort
from xr2ct import tensorboard
from xr2ct.cases import Cases, open_task
from xr2ct.errors import UserError
from xr2ct.models.model import Prediction
from xr2ct.shards import open_shards
from xr2ct.train import train
from xr2ct.training_log import TrainingLog, watch_scores
from xr2ct.watch_pictures import LONGEST_PX, MARGIN_PX, watch_picture


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watching")
    return {"train": write_cohort(folder, 2), "watch": write_cohort(folder, 1, split="validation", seed=1)}


@pytest.fixture(scope="module")
def example(shards):
    return Cases(open_shards([shards["watch"]]), "parallel")[0]


def run(shards, out, **changes):
    values = {"model": "spider", "simulator": "parallel", "shards": [shards["train"]], "watch": [shards["watch"]]}
    train(**values | {"out": out, "settings": TINY, "window": WINDOW, "device": "cpu"} | changes)


def halves(picture):
    """Grey values of the upper (true) and lower (predicted) row."""
    values = np.asarray(picture.convert("L"), float)
    return values[: len(values) // 2], values[len(values) // 2 :]


def test_a_perfect_prediction_shows_the_truth_twice(example):
    picture = watch_picture(example, Prediction(example.case.ct_hu, example.case.label))
    true, predicted = halves(picture)
    above = slice(0, MARGIN_PX + round(LONGEST_PX * 20 / 28))  # the captions "true" and "predicted"
    assert np.array_equal(true[above], predicted[above]) and not np.array_equal(true, predicted)
    # phantom of 20 x 24 x 28 voxels of 3 mm: x is the longest side
    assert picture.width == LONGEST_PX + LONGEST_PX + round(LONGEST_PX * 24 / 28) + 6 * MARGIN_PX


def test_the_prediction_is_the_lower_row_and_needs_no_labels(example):
    true, predicted = halves(watch_picture(example, Prediction(np.full_like(example.case.ct_hu, -1000), None)))
    inner = (slice(MARGIN_PX, 100), slice(MARGIN_PX, LONGEST_PX))
    assert true[inner].mean() > 40 and predicted[inner].max() == 0


def test_the_ball_on_the_patients_left_is_on_the_right_of_the_axial_slice(example):
    """The world's +x is the patient's right: the ball lies at smaller x than the middle of the volume."""
    label = np.zeros_like(example.case.label)
    z, y, x = np.argwhere(example.case.label == 1).mean(axis=0)
    world_x = (example.case.affine @ [x, y, z, 1])[0] - (example.case.affine @ [13.5, y, z, 1])[0]
    picture = watch_picture(example, Prediction(example.case.ct_hu, np.where(example.case.label == 1, 1, label)))
    colour = np.asarray(picture)[:, :, 2].astype(int) - np.asarray(picture)[:, :, 0]
    columns = np.flatnonzero((colour[len(colour) // 2 :, MARGIN_PX : MARGIN_PX + LONGEST_PX] > 20).any(axis=0))
    assert world_x < -3 and columns.mean() > LONGEST_PX / 2 + 10


def scores_of(example, predicted, known, task, **changes):
    case = replace(example.case, **changes)
    return watch_scores([Prediction(case.ct_hu, predicted)], [replace(example, case=case)], task, known)


def test_dice_counts_structures_that_the_case_shows_and_is_annotated_for_and_the_model_knows(shards, example):
    """Ball predicted as it is, rod not at all, plate not at all."""
    task, _ = open_task([shards["watch"]], "parallel", WINDOW)
    label = np.where(example.case.label == 1, np.uint8(1), np.uint8(0))
    every, status = task.structures, np.array([3, 3, 0, 1], np.uint8)
    assert scores_of(example, label, every, task)["watch_dice"] == pytest.approx(1 / 3)
    assert scores_of(example, label, ["background", "ball", "rod"], task)["watch_dice"] == pytest.approx(1 / 2)
    assert scores_of(example, label, ["background", "ball"], task)["watch_dice"] == 1
    without_plate = np.where(example.case.label == 3, np.uint8(0), example.case.label)
    assert scores_of(example, label, every, task, label_status=status, label=without_plate)["watch_dice"] == 1
    for nothing in (scores_of(example, label, ["background"], task), scores_of(example, None, every, task)):
        assert set(nothing) == {"watch_psnr_db"}


def test_voxels_that_nobody_may_judge_do_not_lower_the_dice(shards, example):
    task, _ = open_task([shards["watch"]], "parallel", WINDOW)
    label = example.case.label.copy()
    label[:, :, :8][label[:, :, :8] == 1] = 255
    assert (label == 1).any()
    assert scores_of(example, example.case.label, task.structures, task, label=label)["watch_dice"] == 1


def test_a_subset_of_structures_is_watched_alone(shards, tmp_path):
    """The network is not punished for structures that it was not to learn."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xr2ct.descent, "watch_scores", lambda *given: seen.append(given[3]) or watch_scores(*given))
        run(shards, tmp_path / "run", settings=TINY | {"structures": ["rod"]})
    assert seen == [["background", "rod"]] * 2


def test_the_summary_of_a_log_is_its_last_scores_and_a_better_one():
    log = TrainingLog()
    assert log.summary() == ""
    log.close_row(step=4, seconds=1.0, watch_psnr_db=12.25)
    assert log.summary() == "watched PSNR 12.25 dB"
    log.close_row(step=6, seconds=2.0, watch_psnr_db=11.0, watch_dice=0.5)
    log.close_row(step=8, seconds=3.0)
    assert log.summary() == "watched PSNR 11.00 dB, Dice 0.500 (best 12.25 dB at step 4)"


def test_pictures_are_written_at_every_watch(shards, tmp_path):
    run(shards, tmp_path / "run")
    files = sorted((tmp_path / "run" / "watch").iterdir())
    assert [file.name for file in files] == ["step-000004.png", "step-000006.png"]
    with Image.open(files[0]) as first, Image.open(files[1]) as second:
        assert first.mode == "RGB" and first.size == second.size
        assert np.array_equal(halves(first)[0], halves(second)[0]) and not np.array_equal(
            *map(np.asarray, (first, second))
        )
    run(shards, tmp_path / "blind", watch=[])
    assert not (tmp_path / "blind" / "watch").exists()


def test_tensorboard_that_is_not_installed_is_said(shards, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        UserError, match=r"--tensorboard needs the package tensorboard.*pip install 'xr2ct\[tensorboard\]'"
    ):
        run(shards, tmp_path / "run", tensorboard=True)


class FakeWriter:
    """Notes the calls of a SummaryWriter."""

    calls: ClassVar[list] = []

    def __init__(self, log_dir, purge_step):
        self.calls.append(("open", log_dir, purge_step))

    def add_scalar(self, name, value, step):
        self.calls.append((name, value, step))

    def add_image(self, name, image, step, dataformats):
        self.calls.append((name, image.shape, step, dataformats))

    def flush(self): ...
    def close(self):
        self.calls.append(("close",))


def test_every_row_and_picture_goes_to_tensorboard_too(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeWriter, "calls", [])
    monkeypatch.setattr(tensorboard, "summary_writer", lambda: FakeWriter)
    run(shards, tmp_path / "run", tensorboard=True)
    calls = FakeWriter.calls
    assert calls[0] == ("open", str(tmp_path / "run" / "tensorboard"), 0) and calls[-1] == ("close",)
    assert [call[2] for call in calls if call[0] == "loss"] == [2, 4, 6]
    assert [call[2] for call in calls if call[0] == "watch_psnr_db"] == [4, 6]
    assert [(call[1][-1], call[2:]) for call in calls if call[0] == "watch"] == [(3, (4, "HWC")), (3, (6, "HWC"))]


@pytest.mark.slow
def test_the_real_tensorboard_reads_what_was_logged(shards, tmp_path):
    """In a process of its own: the package's imports warn."""
    if find_spec("tensorboard") is None:
        pytest.skip("tensorboard is not installed")
    words = ["--model", "spider", "--simulator", "parallel", "--shards", shards["train"], "--watch", shards["watch"]]
    words += ["--settings", '{"steps": 4, "widths": [4, 8], "points": 8, "log2_entries": 8, "log_steps": 2}']
    done = subprocess.run(
        [sys.executable, "-m", "xr2ct", "train", *map(str, words), "--out", tmp_path / "run", "--tensorboard"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    read = (
        "import sys\n"
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
        "events = EventAccumulator(sys.argv[1]).Reload()\n"
        "print([event.step for event in events.Scalars('loss')], [event.step for event in events.Images('watch')])\n"
    )
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", read, tmp_path / "run" / "tensorboard"], capture_output=True, text=True
    )
    assert found.stdout.splitlines()[-1:] == ["[2, 4] [4]"], found.stderr
