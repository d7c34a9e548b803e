"""The plain SPIDER that the training step is measured against computes the same thing, and the step's clock adds up."""

import time

import numpy as np
import pytest
import torch

from benchmarks import step
from benchmarks.plain_spider import PlainSpider

TINY = {
    "widths": [4, 8],
    "hidden": 8,
    "levels": 3,
    "level_features": 8,
    "coarsest": 4,
    "log2_entries": 9,
    "points": 8,
    "intensity_balance": 0.5,
}


@pytest.mark.parametrize("beam", ["parallel", "cone"])
def test_plain_and_ours_have_the_same_loss_and_gradients(beam):
    examples = step.invent_examples(16, 2, beam)
    model = step.make_model(examples, TINY)
    plain = PlainSpider(model)
    torch.nn.init.uniform_(model.position.parameters_flat, -1, 1)
    plain.table.data = model.position.table().detach().clone()
    expected = model.loss(examples, np.random.default_rng(3))["loss"]
    found = plain.loss(examples, step.lattice_of(model, 3))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    expected.backward()
    found.backward()
    torch.testing.assert_close(plain.table.grad, model.position.parameters_flat.grad.view(-1, 8), rtol=1e-4, atol=1e-7)
    for ours, theirs in zip(model.unet.parameters(), [*plain.down.parameters(), *plain.up.parameters()], strict=True):
        torch.testing.assert_close(theirs.grad, ours.grad, rtol=1e-3, atol=1e-6)


def test_the_invented_views_see_an_off_centre_voxel_where_it_is():
    example = step.invent_examples(16, 1, "parallel")[0]
    world = example.case.affine @ [3, 5, 11, 1]
    (u, v, w), (u_side, v_side, w_side) = example.xray.projection @ world
    assert (u / w, v / w) == pytest.approx((3, 15 - 11))
    assert (u_side / w_side, v_side / w_side) == pytest.approx((5, 15 - 11))


def test_every_part_of_a_step_has_its_time_and_there_is_no_other():
    examples = step.invent_examples(16, 2, "parallel")
    model, (ours, _) = step.contenders(examples, TINY, bfloat16=False)
    clock = step.Clock()
    with step.watched(model, clock):
        ours.step(0, clock)
    assert {part for part, _ in clock.spent} == set(step.PARTS)
    for part in step.PARTS[:-1]:
        assert clock.spent[part, "forward"] > 0
        assert clock.spent[part, "backward"] > 0
    assert "forward" not in vars(model.unet)


def test_the_time_of_a_part_is_that_of_its_work():
    clock = step.Clock()

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            time.sleep(0.02)
            return value.clone()

        @staticmethod
        def backward(ctx, pull):
            time.sleep(0.04)
            return pull

    value = step.timed(Slow.apply, "UNet", clock)(torch.ones(2, requires_grad=True))
    clock.enter(step.REST, "backward")
    value.sum().backward()
    clock.enter(step.REST)
    assert clock.spent["UNet", "forward"] >= 0.02
    assert clock.spent["UNet", "backward"] >= 0.04


def test_one_command_prints_the_parts_and_the_ratio(capsys):
    settings = [f"--setting={key}={value}" for key, value in TINY.items() if key != "widths"]
    step.main(["--size", "16", "--cases", "2", "--rounds", "1", "--threads", "1", *settings])
    printed = capsys.readouterr().out
    assert "GFLOP/s" in printed
    assert all(part in printed for part in step.PARTS)
    assert "goal 5x" in printed
