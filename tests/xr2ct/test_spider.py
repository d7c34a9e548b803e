"""SPIDER against its written formula, and what its prediction may and may not depend on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.phantoms import phantom_case, write_phantom_shard
from tests.xr2ct.cohort import TINY, WINDOW, write_cohort
from xr2ct.cases import Cases, open_task
from xr2ct.drawing import DRAWS
from xr2ct.errors import UserError
from xr2ct.models.decoders import DECODERS
from xr2ct.models.registry import choose
from xr2ct.models.spider import INTENSITY_BINS, Spider, balancing_weights
from xr2ct.sampling import Lattice, Points, pixels_of, read_bilinear, voxel_to_pixel
from xr2ct.training_settings import OPTIMIZERS, make_optimizer


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
            decoded[place], model.decoder(weight @ code + model.first_position.bias), atol=1e-4, rtol=1e-3
        )


def test_chunks_and_slabs_do_not_change_the_prediction(shard, monkeypatch):
    model, cases = spider_of(shard)
    model.position.parameters_flat.data.uniform_(-1, 1)
    model.decoder.both.last.bias.data[0] = 0.5
    whole = model.predict(cases[0].xray, cases[0].case.affine)
    monkeypatch.setattr("xr2ct.models.spider.CHUNK", 300)
    monkeypatch.setattr("xr2ct.models.spider.SLAB", 7)
    model.cache.drop()
    parts = model.predict(cases[0].xray, cases[0].case.affine)
    assert np.abs(whole.ct_hu.astype(int) - parts.ct_hu).max() <= 1
    assert (whole.label != parts.label).mean() < 1e-3


def test_predicted_hu_are_the_intensity_on_the_window(shard):
    model, cases = spider_of(shard)
    model.decoder.both.last.bias.data[0] = 0.3
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


def test_class_weights_count_only_where_somebody_looked(tmp_path):
    """Four cases, the ball annotated in one of them, and one case without labels: the ball is no rarer for that."""
    every, _ = spider_of(write_cohort(tmp_path, 4))
    cases = [
        phantom_case(f"c{i}", label_status=np.array([3, 3 * (i == 0), 3 * (i < 4), 3 * (i < 4)], np.uint8))
        for i in range(5)
    ]
    some, _ = spider_of(write_phantom_shard(tmp_path / "some.h5", cases, split="train"))
    assert some.class_weight[1] / some.class_weight[2] == pytest.approx(
        float(every.class_weight[1] / every.class_weight[2]), rel=0.1
    )
    none = balancing_weights(np.array([0.9, 0.1, 0.0]), 0.5)
    assert none[2] == 1 and (none * [0.9, 0.1, 0]).sum() == pytest.approx(1)


def test_intensities_count_by_how_rare_they_are_in_the_training_set(shard):
    model, cases = spider_of(shard, intensity_balance=0.5)
    low, high = WINDOW
    hu = np.concatenate([example.case.ct_hu.ravel() for example in cases]).clip(low, high)
    voxels = np.histogram(hu, INTENSITY_BINS, (low, high))[0]
    weight = model.weight_of(torch.from_numpy((hu - low) / (high - low)).float()[None]).numpy()
    assert weight.mean() == pytest.approx(1, rel=1e-4)
    common, rare = voxels.argmax(), np.where(voxels, voxels, voxels.max()).argmin()
    ratio = model.hu_weight[rare] / model.hu_weight[common]
    assert ratio.item() == pytest.approx(np.sqrt(voxels[common] / voxels[rare]), rel=1e-4)
    middle = (torch.arange(INTENSITY_BINS) + 0.5) / INTENSITY_BINS
    assert torch.equal(model.weight_of(middle[None])[0], model.hu_weight)
    plain, _ = spider_of(shard, intensity_balance=0.0)
    assert (plain.hu_weight == 1).all()


def test_what_lies_outside_the_window_counts_as_its_ends(shard):
    task, shards = open_task([shard], "parallel", (-500.0, 20.0))
    model = Spider(task, choose("spider", TINY | {"intensity_balance": 0.5})[1])
    cases = Cases(shards, "parallel")
    model.prepare(cases)
    inside = np.concatenate([example.case.ct_hu.ravel() for example in cases]).clip(-500, 20)
    share = np.histogram(inside, INTENSITY_BINS, (-500, 20))[0] / inside.size
    assert share[0] > 0 and share[-1] > 0
    assert model.hu_weight.numpy() == pytest.approx(balancing_weights(share, 0.5), rel=1e-5)


def test_the_error_of_intensities_without_weight_is_none(shard):
    """With weights that count only the window's top bin, only its error is left of eq. 24."""
    model, cases = spider_of(shard, intensity_balance=0.5, structures=["none"])
    model.hu_weight[:-1] = 0
    assert model.loss([cases[0]], np.random.default_rng(0))["intensity"] == 0
    bright = replace(cases[0], case=replace(cases[0].case, ct_hu=np.full_like(cases[0].case.ct_hu, WINDOW[1])))
    assert model.loss([bright], np.random.default_rng(0))["intensity"] > 0.1


@pytest.mark.parametrize("known", [(), (2,), (1, 2, 3)])
def test_what_no_case_is_annotated_for_is_never_predicted(tmp_path, known):
    status = np.array([3, *(3 * (value in known) for value in (1, 2, 3))], np.uint8)
    model, cases = spider_of(write_cohort(tmp_path, 2, label_status=status))
    with torch.no_grad():
        model.decoder.both.last.bias[2:] = 50 * torch.rand(
            3
        )  # every structure before background, and each of them once
        found = [model.predict(example.xray, example.case.affine).label for example in cases]
    assert model.known_structures == [model.task.structures[value] for value in (0, *known)]
    if not known:
        assert found == [None, None]
    else:
        assert set(np.unique(found)) <= {0, *known} and np.any(found)


@pytest.mark.parametrize("preset", [{"dice": "class"}, {"dice": "micro"}], ids=["class", "micro"])
def test_the_loss_is_the_weighted_sum_of_its_parts(shard, preset):
    model, cases = spider_of(shard, intensity_weight=2.0, dice_weight=0.5, entropy_weight=0.25, **preset)
    parts = model.loss([cases[0], cases[1]], np.random.default_rng(0))
    assert parts["loss"].item() == pytest.approx(
        (2 * parts["intensity"] + 0.5 * parts["dice"] + 0.25 * parts["entropy"]).item()
    )
    parts["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("sampling", DRAWS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_every_decoder_learns_from_every_draw(shard, decoder, sampling):
    model, cases = spider_of(shard, decoder=decoder, sampling=sampling, block=4)
    parts = model.loss([cases[0], cases[1]], np.random.default_rng(0))
    assert set(parts) == {"loss", "intensity", "dice", "entropy"}
    parts["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    assert model.predict(cases[0].xray, cases[0].case.affine).label.max() <= 3


def test_a_draw_sees_the_labels_of_every_case_of_the_batch(shard, monkeypatch):
    seen, comb = [], DRAWS["comb"]
    monkeypatch.setitem(
        DRAWS, "comb", lambda shape, s, labels, random: seen.extend(labels) or comb(shape, s, labels, random)
    )
    model, cases = spider_of(shard, grid_shift=0)
    model.loss([cases[2], cases[0], cases[1]], np.random.default_rng(0))
    assert [label.tolist() for label in seen] == [cases[i].case.label.tolist() for i in (2, 0, 1)]


@pytest.mark.parametrize("simulator", ["parallel", "cone"])
def test_scattered_voxels_are_decoded_as_in_their_lattice(shard, simulator):
    model, cases = spider_of(shard, simulator)
    model.position.parameters_flat.data.uniform_(-1, 1)
    features, matrix = model.features(image_of(cases[1])), matrix_of(cases[1])
    everywhere = model.decode(features, matrix, Lattice(*map(np.arange, model.task.shape), model.task.shape))
    index = np.array([[0, 3, 27], [19, 23, 0], [7, 7, 7], [7, 7, 7]])
    points = model.decode(features, matrix, Points(index, model.task.shape))
    assert points.shape == (1, 4, 1, 1, 5)
    torch.testing.assert_close(points[0, :, 0, 0], everywhere[0][tuple(index.T)], atol=1e-4, rtol=1e-3)


def test_intensity_only_has_no_other_loss_and_predicts_no_label(shard):
    model, cases = spider_of(shard, structures=["none"], intensity_weight=1.0)
    parts = model.loss([cases[0], cases[1]], np.random.default_rng(0))
    assert set(parts) == {"loss", "intensity"}
    assert parts["loss"] == parts["intensity"]
    parts["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.decoder.both.last.out_features == 1
    assert model.predict(cases[0].xray, cases[0].case.affine).label is None


def test_a_subset_of_structures_keeps_the_ids_of_the_task(shard):
    model, cases = spider_of(shard, structures=["plate", "rod"])
    assert model.decoder.both.last.out_features == 4
    model.decoder.both.last.bias.data[2:] = torch.tensor([50.0, -50.0])  # rod everywhere
    assert set(np.unique(model.predict(cases[0].xray, cases[0].case.affine).label)) == {2}
    model.decoder.both.last.bias.data[2:] = torch.tensor([-50.0, 50.0])
    assert set(np.unique(model.predict(cases[0].xray, cases[0].case.affine).label)) == {3}
    voxels = sum(np.bincount(example.case.label.ravel(), minlength=4) for example in cases)
    weight = model.class_weight.numpy()
    assert weight[1] / weight[0] == pytest.approx(np.sqrt((voxels[0] + voxels[1]) / voxels[2]), rel=1e-5)


def test_the_logits_of_a_structure_that_is_not_annotated_take_no_part(shard):
    model, cases = spider_of(shard)
    partly = replace(cases[0], case=replace(cases[0].case, label_status=np.array([3, 3, 0, 3], np.uint8)))
    for examples, silent in (([partly], True), ([partly, cases[1]], False)):
        model.zero_grad()
        model.loss(examples, np.random.default_rng(0))["loss"].backward()
        last = model.decoder.both.last
        assert bool((last.weight.grad[3] == 0).all() and last.bias.grad[3] == 0) is silent
        assert all(last.bias.grad[row] != 0 for row in (0, 1, 2, 4))


def test_background_is_a_class_of_dice_on_request(shard):
    """Of logits that say background everywhere: micro-Dice counts that as success, or not at all."""
    for background in (True, False):
        model, cases = spider_of(shard, dice="micro", dice_background=background)
        model.decoder.both.last.bias.data[1] = 50.0
        dice = model.loss([cases[0]], np.random.default_rng(0))["dice"].item()
        assert (dice < 0.3) if background else (dice == pytest.approx(1, abs=1e-4))


def test_an_average_of_cases_that_another_process_holds_is_one_loss(shard, monkeypatch):
    """All sums of a step pass through one exchange, so that every process calls it equally often."""
    calls = []
    monkeypatch.setattr("xr2ct.losses.sum_over_processes", lambda part: calls.append(part.shape) or 2 * part)
    model, cases = spider_of(shard)
    doubled = model.loss([cases[0]], np.random.default_rng(0))
    assert len(calls) == 1
    monkeypatch.undo()
    alone = model.loss([cases[0]], np.random.default_rng(0))
    for name, part in alone.items():
        assert part.item() == pytest.approx(doubled[name].item(), abs=1e-5)


def test_every_parameter_belongs_to_one_part(shard):
    model, _ = spider_of(shard)
    parts = model.parts()
    assert set(parts) == {"encoder", "decoder", "position"}
    names = {id(value): name for name, value in model.named_parameters()}
    found = [id(value) for modules in parts.values() for module in modules for value in module.parameters()]
    assert sorted(found) == sorted(names)
    assert names[id(next(parts["encoder"][0].parameters()))].startswith("unet")
    assert [type(module).__name__ for module in parts["position"]] == ["HashGrid"]


def test_prediction_uses_the_running_statistics_and_leaves_every_mode_as_it_was(shard):
    model, cases = spider_of(shard, norm="batch")
    model.decoder.both.last.bias.data[0] = 0.5
    model.loss([cases[0], cases[1]], np.random.default_rng(0))
    model.unet.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    frozen = model.predict(cases[0].xray, cases[0].case.affine)
    assert model.training and model.decoder.training and not model.unet.training
    model.train()
    trained = model.predict(cases[0].xray, cases[0].case.affine)
    assert all(module.training for module in model.modules())
    assert (frozen.ct_hu == trained.ct_hu).all()
    assert np.ptp(frozen.ct_hu) > 10
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_the_position_is_computed_twice_for_all_cases_until_the_parameters_change(shard, monkeypatch):
    model, cases = spider_of(shard)
    model.position.parameters_flat.data.uniform_(-1, 1)
    model.decoder.both.last.bias.data[0] = 0.5
    calls, part = [], Spider.position_part
    monkeypatch.setattr(Spider, "position_part", lambda self, voxels: calls.append(1) or part(self, voxels))

    def predict(number):
        calls.clear()
        return model.predict(cases[number].xray, cases[number].case.affine).ct_hu, len(calls)

    first, computed = predict(0)
    assert computed == 10  # slabs of two slices
    for expected in (10, 0):  # the second case keeps what it computes
        kept, computed = predict(0)
        assert computed == expected
        assert (kept == first).all()
    assert predict(1)[1] == 0
    for parameter in (model.position.parameters_flat, model.first_position.weight, model.first_position.bias):
        parameter.data.mul_(-3)
        changed, computed = predict(0)
        assert computed == 10
        assert (changed != first).any()
        first = changed
    model.loss([cases[0]], np.random.default_rng(0))
    assert not model.cache.kept
    assert "cache" not in " ".join(model.state_dict())


@pytest.mark.parametrize("decoder", DECODERS)
def test_bfloat16_is_the_same_network_to_its_precision(shard, decoder):
    losses = []
    for precision in ("float32", "bfloat16"):
        model, cases = spider_of(shard, precision=precision, decoder=decoder)
        model.position.parameters_flat.data.uniform_(-0.1, 0.1)
        parts = model.loss([cases[0], cases[1]], np.random.default_rng(0))
        assert parts["loss"].dtype == torch.float32
        parts["loss"].backward()
        assert all(value.dtype == value.grad.dtype == torch.float32 for value in model.parameters())
        losses.append(torch.stack([parts[name].detach() for name in sorted(parts)]))
        model.predict(cases[0].xray, cases[0].case.affine)
    torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0.005)
    assert not torch.equal(*losses)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder": "two_branches"}, r"decoder 'two_branches' is not known; .* Did you mean 'two_branch'\?"),
        ({"sampling": "block"}, r"sampling 'block' .*comb, uniform, blocks, mixed"),
        ({"norm": "layer"}, r"norm 'layer' .*group, batch"),
        ({"precision": "half"}, r"precision 'half' .*float32, bfloat16"),
        ({"layers": 1}, r"'layers' is 1; expected 2 or more"),
        ({"points": 0}, r"'points' is 0; expected 1 or more"),
        ({"dice_weight": -1}, r"'dice_weight' is -1\.0; expected 0 or more"),
        ({"surface_share": 1.5}, r"'surface_share' is 1\.5; expected a share"),
        ({"intensity_balance": 8.0}, r"'intensity_balance' is 8\.0; expected a share"),
        ({"widths": []}, r"'widths' is \[\]; expected at least one width"),
        ({"widths": [12, 24]}, r"'widths' is \[12, 24\]; expected multiples of 8"),
        ({"finest": 2}, r"'finest' is 2; expected 0 or at least coarsest \(4\)"),
    ],
)
def test_settings_without_sense_are_refused_in_words(changes, message):
    with pytest.raises(UserError, match=message):
        choose("spider", TINY | changes)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weight_decay_shrinks_everything_but_the_hash_table(shard, optimizer):
    model, _ = spider_of(shard, weight_decay=0.5, learning_rate=0.1, optimizer=optimizer)
    descent = make_optimizer(model, model.settings)
    for value in model.parameters():
        value.data.fill_(0.25)
        value.grad = torch.zeros_like(value)
    descent.step()
    for name, value in model.named_parameters():
        of_table = name.startswith("position.")
        assert (value == 0.25).all() if of_table else ((value > 0) & (value < 0.25)).all(), name


@pytest.mark.parametrize("simulator", ["parallel", "cone"])
def test_it_learns_to_follow_the_ball(shard, tmp_path, simulator):
    """Held-out phantoms are shifted; the predicted ball must move with its shadows, not sit at the training mean."""
    settings = {"widths": [8, 16, 16], "hidden": 32, "points": 16, "entropy_weight": 1.0}
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
