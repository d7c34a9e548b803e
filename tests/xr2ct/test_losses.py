"""Loss terms by hand arithmetic, and what a missing annotation leaves out."""

import math

import pytest
import torch

from xr2ct.losses import (
    IGNORE,
    annotated_log_probabilities,
    class_dice_loss,
    cross_entropy,
    dice_sums,
    micro_dice_loss,
)

# One case, four points, three classes; point 3 is not to be judged.
PROBABILITY = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.0, 0.0, 1.0]]])
LABEL = torch.tensor([[0, 1, 1, IGNORE]])
ALL = torch.ones(1, 3, dtype=torch.bool)


def test_dice_sums_are_overlap_and_total_per_class():
    overlap, total = dice_sums(PROBABILITY.log(), LABEL, ALL)
    torch.testing.assert_close(overlap, torch.tensor([0.5, 0.8 + 0.2, 0.0]))
    torch.testing.assert_close(total, torch.tensor([0.8 + 1, 1.25 + 2, 0.95 + 0]))


def test_micro_dice_is_equation_25():
    overlap, total = dice_sums(PROBABILITY.log(), LABEL, ALL)
    assert micro_dice_loss(overlap, total).item() == pytest.approx(1 - 2 * 1.5 / 6.0, abs=1e-5)


def test_class_dice_averages_the_present_structures_without_background():
    overlap, total = torch.tensor([9.0, 1.0, 0.0, 3.0]), torch.tensor([9.0, 3.25, 0.95, 8.0])
    present = torch.tensor([True, True, False, True])
    expected = ((1 - 2 / 3.25) + (1 - 6 / 8)) / 2
    assert class_dice_loss(overlap, total, present).item() == pytest.approx(expected, abs=1e-5)
    assert class_dice_loss(overlap, total, torch.zeros(4, dtype=torch.bool)).item() == 0


def test_cross_entropy_is_a_weighted_mean_over_known_points():
    weight = torch.tensor([1.0, 3.0, 100.0])
    expected = -(math.log(0.5) + 3 * math.log(0.8) + 3 * math.log(0.2)) / 7
    assert cross_entropy(PROBABILITY.log(), LABEL, ALL, weight).item() == pytest.approx(expected, rel=1e-5)
    assert cross_entropy(PROBABILITY.log(), torch.full((1, 4), IGNORE), ALL, weight).item() == 0


def total_loss(logits, label, annotated):
    log_probability = annotated_log_probabilities(logits, annotated)
    overlap, total = dice_sums(log_probability, label, annotated)
    entropy = cross_entropy(log_probability, label, annotated, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    return entropy + micro_dice_loss(overlap, total) + class_dice_loss(overlap, total, overlap > 0)


def test_a_class_without_annotation_takes_no_part():
    torch.manual_seed(0)
    logits = torch.randn(2, 50, 4, requires_grad=True)
    label = torch.randint(0, 4, (2, 50))
    annotated = torch.tensor([[True, True, False, True], [True, True, True, True]])
    loss = total_loss(logits, label, annotated)
    assert loss.isfinite()
    loss.backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[0, :, 2] == 0).all()
    assert (logits.grad[1, :, 2] != 0).all()
    assert (logits.grad[0][label[0] != 2][:, [0, 1, 3]] != 0).all()

    changed = logits.detach().clone()
    changed[0, :, 2] += 5
    assert total_loss(changed, label, annotated) == total_loss(logits, label, annotated)


def test_probabilities_of_annotated_classes_sum_to_one():
    annotated = torch.tensor([[True, False, True, True]])
    probability = annotated_log_probabilities(torch.randn(1, 5, 4), annotated).exp()
    assert (probability[..., 1] == 0).all()
    torch.testing.assert_close(probability.sum(-1), torch.ones(1, 5))
