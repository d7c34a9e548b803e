"""Beginning from a trained model, and parts of a model that stay as they are."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import nn

from tests.xr2ct.cohort import TINY, WINDOW, write_cohort
from xr2ct.checkpoint import load_checkpoint
from xr2ct.errors import UserError
from xr2ct.freezing import freeze, set_training
from xr2ct.models.registry import MODELS
from xr2ct.start import OBJECTIVE
from xr2ct.train import file_sha256, train
from xr2ct.training_settings import TrainingSettings, make_optimizer

BATCH = TINY | {"norm": "batch"}
WEIGHTS = ("class_weight", "hu_weight")  # of the objective, from the training cases
PARTS = {"encoder": "unet.", "position": "position.", "decoder": ("first_", "decoder.")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A shard, another one, and a model trained on the first with batch normalisation."""
    folder = tmp_path_factory.mktemp("start")
    files = {"one": write_cohort(folder, 3), "other": write_cohort(folder, 2, seed=5)}
    files["cone"] = files["one"]
    run(files["one"], folder / "a", BATCH)
    return files | {"model": folder / "a" / "model.pt"}


def run(shard, out, settings, **changes):
    values = {"model": "spider", "simulator": "parallel", "shards": [shard], "out": out, "settings": settings}
    train(**values | {"window": WINDOW, "seed": 3, "device": "cpu"} | changes)


def state_of(path):
    return load_checkpoint(path)["state"]


def test_one_step_from_a_start_begins_at_its_parameters_and_normalisation(trained, tmp_path):
    still = BATCH | {"steps": 1, "optimizer": "sgd", "learning_rate": 1e-30, "dice_weight": 0}
    run(trained["other"], tmp_path / "b", still, start=trained["model"], seed=9)
    there, here = state_of(trained["model"]), state_of(tmp_path / "b" / "model.pt")
    assert {name for name in there if not torch.equal(there[name], here[name])} == {
        name for name in there if "running" in name or "num_batches" in name or name in WEIGHTS
    }
    identity = load_checkpoint(tmp_path / "b" / "model.pt")["identity"]
    assert identity["start"] == file_sha256(trained["model"]) and identity["limit"] == 0


def test_what_the_new_cases_tell_of_labels_is_learned_beside_what_the_start_knew(tmp_path):
    """The start knew the rod alone, the new cases show the ball: both can be predicted, weighted as the new ones say."""
    first, then = (
        write_cohort(folder, 2, seed=ball, label_status=np.array([3, 3 * ball, 3 * rod, 0], np.uint8))
        for folder, ball, rod in ((tmp_path / "one", 0, 1), (tmp_path / "two", 1, 0))
    )
    balanced = TINY | {"intensity_balance": 0.5}
    still = balanced | {"steps": 1, "optimizer": "sgd", "learning_rate": 1e-30}
    run(first, tmp_path / "a", balanced)
    run(then, tmp_path / "b", still, start=tmp_path / "a/model.pt")
    run(then, tmp_path / "c", still)
    started, alone = (state_of(tmp_path / name / "model.pt") for name in "bc")
    assert started["annotated"].tolist() == [True, True, True, False]
    for name in WEIGHTS:
        assert torch.equal(started[name], alone[name])
        assert not torch.equal(started[name], state_of(tmp_path / "a/model.pt")[name])


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_frozen_part_does_not_move_by_a_bit_and_the_others_do(trained, tmp_path, part, optimizer):
    settings = BATCH | {"freeze": [part], "weight_decay": 0.1, "ema": 0.7, "optimizer": optimizer}
    run(trained["other"], tmp_path / "b", settings, start=trained["model"], limit=1)
    there, here = state_of(trained["model"]), state_of(tmp_path / "b" / "model.pt")
    moved = {name for name in there if not torch.equal(there[name], here[name])}
    of_part = {name for name in there if name.startswith(PARTS[part])}
    assert of_part and not moved & of_part
    buffers = {"image_mean", "image_scale", *WEIGHTS}
    rest = {name for name in there if name not in of_part | buffers and "running" not in name}
    assert len(moved & rest) > len(rest) / 2
    assert all(any(name.startswith(PARTS[other]) for name in moved) for other in set(PARTS) - {part})


def test_frozen_parts_are_left_out_of_the_optimizer_and_stay_in_mode_eval():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.BatchNorm1d(2), nn.Linear(2, 2)

        def parts(self):
            return {"first": [self.first], "second": [self.second]}

        def loss(self, examples, random): ...
        def begin_from(self, state): ...
        def prepare(self, cases): ...
        def predict(self, xray, affine): ...

    model = Two()
    frozen = freeze(model, ["first"])
    optimizer = make_optimizer(model, TrainingSettings())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2
    set_training(model, frozen)
    assert model.training and model.second.training and not model.first.training
    with pytest.raises(UserError, match="nothing is left to train"):
        freeze(model, ["first", "second"])


@pytest.mark.parametrize(
    ("settings", "changes", "named"),
    [
        ({"widths": [4, 16]}, {}, r"settings\.widths \[4, 8\] there, \[4, 16\] here"),
        ({"coarsest": 5}, {}, r"settings\.coarsest 4 there, 5 here"),
        ({"norm": "group"}, {}, r"settings\.norm batch there, group here"),
        ({}, {"simulator": "cone"}, r"task\.simulator parallel there, cone here"),
        ({}, {"window": (-500.0, 500.0)}, r"task\.window_hu \[-1000\.0, 1500\.0\] there, \[-500\.0, 500\.0\] here"),
    ],
    ids=["widths", "coarsest", "norm", "simulator", "window"],
)
def test_a_start_of_another_network_or_task_is_named(trained, tmp_path, settings, changes, named):
    with pytest.raises(UserError, match=rf"--start \S+ is of another network or task \({named}"):
        run(trained["one"], tmp_path / "b", BATCH | settings, start=trained["model"], **changes)
    assert not (tmp_path / "b").exists()


def test_a_start_may_have_another_objective(trained, tmp_path):
    settings = BATCH | {"dice_weight": 0, "entropy_weight": 0, "points": 4, "optimizer": "sgd"}
    run(trained["one"], tmp_path / "b", settings, start=trained["model"])
    known = {field.name for field in fields(MODELS["spider"].settings)}
    assert set(OBJECTIVE) <= known - {field.name for field in fields(TrainingSettings)}


def test_models_that_learn_in_one_pass_cannot_begin_from_another(trained, tmp_path):
    with pytest.raises(UserError, match=r"model mean learns in one pass and cannot begin from \S+model\.pt"):
        run(trained["one"], tmp_path / "b", {}, model="mean", start=trained["model"])
    with pytest.raises(UserError, match=r"nowhere\.pt: there is no such checkpoint"):
        run(trained["one"], tmp_path / "b", BATCH, start=tmp_path / "nowhere.pt")
