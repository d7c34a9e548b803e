"""SPIDER against its written formula, and what its prediction may and may not depend on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.xr2ct.cohort import TINY, WINDOW, write_cohort
from xr2ct.cases import Cases, open_task
from xr2ct.models.registry import choose
from xr2ct.models.spider import Spider
from xr2ct.sampling import Lattice, pixels_of, read_bilinear, voxel_to_pixel
from xr2ct.training_settings import make_optimizer


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("spider"), 8)


def spider_of(shard, simulator="parallel", **settings):
    task, shards = open_task([shard], simulator, WINDOW)
    torch.manual_seed(0)
    model = Spider(task, choose("spider", TINY | settings)[1])
    cases = Cases(shards, simulator)
    model.prepare(cases)
    return model, cases


def image_of(example):
    return torch.from_numpy(example.xray.image)[None]


def matrix_of(example):
    return torch.from_numpy(voxel_to_pixel(example.xray.projection, example.case.affine))[None]


@pytest.mark.parametrize("simulator", ["parallel", "cone"])
def test_decoding_is_one_mlp_on_the_concatenated_codes_of_every_point(shard, simulator):
    model, cases = spider_of(shard, simulator)
    model.position.parameters_flat.data.uniform_(-1, 1)
    lattice = Lattice(np.array([1, 9, 19]), np.array([2, 3]), np.array([0, 14, 15, 27]), model.task.shape)
    features, matrix = model.features(image_of(cases[1])), matrix_of(cases[1])
    decoded = model.decode(features, matrix, lattice)[0]

    weight = torch.cat([*(first.weight for first in model.first_view), model.first_position.weight], dim=1)
    for place in np.ndindex(3, 2, 4):
        point = Lattice(*(axis[[i]] for axis, i in zip(lattice.axes, place, strict=True)), lattice.shape)
        unit = torch.tensor([axis.item() for axis in point.unit()[::-1]], dtype=torch.float32)
        views = [read_bilinear(features[:, v], pixels_of(matrix[:, v], point)).flatten() for v in range(2)]
        code = torch.cat([*views, model.position(unit[None])[0]])  # eq. 18
        torch.testing.assert_close(
            decoded[place], model.rest(weight @ code + model.first_position.bias), atol=1e-4, rtol=1e-3
        )


def test_chunks_and_slabs_do_not_change_the_prediction(shard, monkeypatch):
    model, cases = spider_of(shard)
    model.position.parameters_flat.data.uniform_(-1, 1)
    whole = model.predict(cases[0].xray, cases[0].case.affine)
    monkeypatch.setattr("xr2ct.models.spider.CHUNK", 300)
    monkeypatch.setattr("xr2ct.models.spider.SLAB", 7)
    parts = model.predict(cases[0].xray, cases[0].case.affine)
    assert np.abs(whole.ct_hu.astype(int) - parts.ct_hu).max() <= 1
    assert (whole.label != parts.label).mean() < 1e-3


def test_predicted_hu_are_the_intensity_on_the_window(shard):
    model, cases = spider_of(shard)
    model.rest[-1].bias.data[0] = 0.3
    everywhere = Lattice(*map(np.arange, model.task.shape), model.task.shape)
    decoded = model.decode(model.features(image_of(cases[0])), matrix_of(cases[0]), everywhere)[0]
    prediction = model.predict(cases[0].xray, cases[0].case.affine)
    expected = decoded[..., 0].detach().numpy().clip(0, 1) * 2500 - 1000
    assert np.abs(prediction.ct_hu - expected).max() < 1
    assert (prediction.label == decoded[..., 1:].argmax(-1).numpy()).mean() > 0.999


def test_xrays_are_normalised_by_the_training_set_only(shard):
    model, cases = spider_of(shard)
    images = np.stack([example.xray.image for example in cases]).astype(float)
    assert model.image_mean.numpy() == pytest.approx(images.mean(axis=(0, 2, 3)), rel=1e-5)
    assert model.image_scale.numpy() == pytest.approx(images.std(axis=(0, 2, 3)), rel=1e-4)
    seen = []
    model.unet.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model.features(image_of(cases[0]))
    model.features(2 * image_of(cases[0]))
    expected = (2 * images[0] - model.image_mean.numpy()[:, None, None]) / model.image_scale.numpy()[:, None, None]
    torch.testing.assert_close(seen[1][:, 0].double(), torch.from_numpy(expected), atol=1e-4, rtol=1e-4)


def test_class_weights_have_mean_one_over_the_voxels_and_favour_the_rare(shard):
    model, cases = spider_of(shard)
    voxels = sum(np.bincount(example.case.label.ravel(), minlength=4) for example in cases)
    weight = model.class_weight.numpy()
    assert (weight * voxels).sum() / voxels.sum() == pytest.approx(1, rel=1e-5)
    assert weight[1] / weight[0] == pytest.approx(np.sqrt(voxels[0] / voxels[1]), rel=1e-5)


def test_targets_are_the_window_mapped_to_one(shard):
    model, cases = spider_of(shard)
    lattice = Lattice(np.arange(20), np.arange(24), np.arange(28), model.task.shape)
    nothing = replace(cases[1], case=replace(cases[1].case, label_status=np.array([3, 0, 0, 0], np.uint8)))
    intensity, label, annotated = model.targets([cases[0], nothing], lattice)
    assert intensity.shape == (2, 20 * 24 * 28)
    expected = (cases[0].case.ct_hu.ravel().clip(*WINDOW) + 1000.0) / 2500.0
    assert intensity[0].numpy() == pytest.approx(expected, abs=1e-6)
    assert label[0].numpy().tolist() == cases[0].case.label.ravel().tolist()
    assert (label[1] == 255).all()
    assert annotated.tolist() == [[True] * 4, [True, False, False, False]]


@pytest.mark.parametrize("preset", [{"dice": "class"}, {"dice": "micro"}], ids=["class", "micro"])
def test_the_loss_is_the_weighted_sum_of_its_parts(shard, preset):
    model, cases = spider_of(shard, intensity_weight=2.0, dice_weight=0.5, entropy_weight=0.25, **preset)
    parts = model.loss([cases[0], cases[1]], np.random.default_rng(0))
    assert parts["loss"].item() == pytest.approx(
        (2 * parts["intensity"] + 0.5 * parts["dice"] + 0.25 * parts["entropy"]).item()
    )
    parts["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("simulator", ["parallel", "cone"])
def test_it_learns_to_follow_the_ball(shard, tmp_path, simulator):
    """Held-out phantoms are shifted; the predicted ball must move with its shadows, not sit at the training mean."""
    settings = {"steps": 0, "widths": [8, 16, 16], "hidden": 32, "points": 16, "entropy_weight": 1.0}
    model, cases = spider_of(shard, simulator, **settings)
    optimizer = make_optimizer(model, model.settings)
    for step in range(150):
        optimizer.zero_grad()
        model.loss([cases[step % 8], cases[(step + 3) % 8]], np.random.default_rng(step))["loss"].backward()
        optimizer.step()

    _, shards = open_task([write_cohort(tmp_path, 6, split="test", seed=5)], simulator, WINDOW)
    true, found = [], []
    for example in Cases(shards, simulator):
        label = model.predict(example.xray, example.case.affine).label
        assert (label == 1).any()
        true.append(np.argwhere(example.case.label == 1).mean(axis=0))
        found.append(np.argwhere(label == 1).mean(axis=0))
    true, found = np.array(true), np.array(found)
    for axis in range(3):
        assert np.corrcoef(true[:, axis], found[:, axis])[0, 1] > 0.8
    assert np.abs(true - found).mean() < 0.6
