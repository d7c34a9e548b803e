"""Loss terms by hand arithmetic, and what a missing annotation leaves out."""

import math

import pytest
import torch

from xr2ct.losses import (
    DICE,
    EPSILON,
    IGNORE,
    absolute_sums,
    annotated_log_probabilities,
    class_dice_loss,
    dice_sums,
    entropy_sums,
    mean,
    micro_dice_loss,
    over_processes,
    presence,
)

# One case, four points, three classes; point 3 is not to be judged.
PROBABILITY = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.0, 0.0, 1.0]]])
LABEL = torch.tensor([[0, 1, 1, IGNORE]])
ALL = torch.ones(1, 3, dtype=torch.bool)


def test_dice_sums_are_overlap_and_total_per_class():
    overlap, total = dice_sums(PROBABILITY.log(), LABEL, ALL)
    torch.testing.assert_close(overlap, torch.tensor([0.5, 0.8 + 0.2, 0.0]))
    torch.testing.assert_close(total, torch.tensor([0.8 + 1, 1.25 + 2, 0.95 + 0]))


def test_a_point_of_a_class_the_case_is_not_annotated_for_is_wrong_for_the_others():
    """Its label is no overlap, but what the annotated classes claim there still counts: p = (.75, .25) and (.5, .5)."""
    annotated = torch.tensor([[True, True, False]])
    log_probability = torch.tensor([[[0.75, 0.25, 0.0], [0.5, 0.5, 0.0]]]).log()
    overlap, total = dice_sums(log_probability, torch.tensor([[0, 2]]), annotated)
    torch.testing.assert_close(overlap, torch.tensor([0.75, 0.0, 0.0]))
    torch.testing.assert_close(total, torch.tensor([1.25 + 1, 0.75, 0.0]))


def test_micro_dice_is_equation_25_by_hand():
    """Three points, two classes: p = (.9, .1), (.2, .8), (.4, .6) with labels 0, 1, 0."""
    log_probability = torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]]).log()
    overlap, total = dice_sums(log_probability, torch.tensor([[0, 1, 0]]), torch.ones(1, 2, dtype=torch.bool))
    assert overlap.tolist() == pytest.approx([0.9 + 0.4, 0.8])
    assert total.tolist() == pytest.approx([1.5 + 2, 1.5 + 1])
    everywhere = torch.ones(2, dtype=torch.bool)
    assert micro_dice_loss(overlap, total, everywhere).item() == pytest.approx(1 - 4.2 / 6.0, abs=1e-6)


def test_micro_dice_has_epsilon_once_above_and_once_below():
    small, absent = torch.tensor([1e-5, 1e-5], dtype=torch.float64), torch.zeros(2, dtype=torch.bool)
    expected = 1 - (2 * 2e-5 + EPSILON) / (6e-5 + EPSILON)
    assert micro_dice_loss(small, 3 * small, absent).item() == pytest.approx(expected)
    assert EPSILON == 1e-5
    assert micro_dice_loss(0 * small, 0 * small, absent).item() == 0


def test_class_dice_averages_the_present_classes():
    overlap, total = torch.tensor([1.0, 0.0, 3.0]), torch.tensor([3.25, 0.95, 8.0])
    present = torch.tensor([True, False, True])
    expected = ((1 - 2 / 3.25) + (1 - 6 / 8)) / 2
    assert class_dice_loss(overlap, total, present).item() == pytest.approx(expected, abs=1e-5)
    assert class_dice_loss(overlap, total, torch.zeros(3, dtype=torch.bool)).item() == 0


def test_presence_counts_known_labels():
    assert presence(torch.tensor([[0, 2, 2, IGNORE]]), 4).tolist() == [1, 0, 2, 0]


def test_entropy_is_a_weighted_mean_over_known_points():
    weight = torch.tensor([1.0, 3.0, 100.0])
    total, weights = entropy_sums(PROBABILITY.log(), LABEL, ALL, weight)
    assert total.item() == pytest.approx(-(math.log(0.5) + 3 * math.log(0.8) + 3 * math.log(0.2)), rel=1e-5)
    assert weights.item() == 7
    assert mean(total, weights).item() == pytest.approx(total.item() / 7)
    assert mean(*entropy_sums(PROBABILITY.log(), torch.full((1, 4), IGNORE), ALL, weight)).item() == 0


def test_l1_is_the_weighted_mean_absolute_difference():
    found, true = torch.tensor([[0.5, 1.0], [0.0, 0.25]]), torch.tensor([[1.0, 0.0], [0.0, 0.5]])
    total, count = absolute_sums(found, true, torch.ones(2, 2))
    assert (total.item(), count.item()) == (1.75, 4)
    assert mean(total, count).item() == pytest.approx(1.75 / 4)
    total, weights = absolute_sums(found, true, torch.tensor([[2.0, 0.5], [7.0, 0.0]]))
    assert (total.item(), weights.item()) == (1.5, 9.5)


def test_sums_of_two_halves_give_the_loss_and_gradient_of_the_whole(monkeypatch):
    """Two processes in turn: each adds the other's sums; their gradients are added up."""
    torch.manual_seed(0)
    logits = torch.randn(2, 40, 4, dtype=torch.float64, requires_grad=True)
    label, annotated = torch.randint(0, 4, (2, 40)), torch.tensor([[True, True, False, True], [True] * 4])
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    point_weight = torch.rand(2, 40, dtype=torch.float64)

    def sums_of(part):
        log_probability = annotated_log_probabilities(logits[part], annotated[part])
        overlap, total = dice_sums(log_probability, label[part], annotated[part])
        error, points = absolute_sums(logits[part][..., 0], torch.zeros_like(point_weight[part]), point_weight[part])
        entropy, weights = entropy_sums(log_probability, label[part], annotated[part], weight)
        present = presence(label[part], 4).double()
        return {"overlap": overlap, "total": total, "error": error, "points": points, "entropy": entropy,
                "weight": weights, "present": present}  # fmt: skip

    def loss_of(sums):
        dice = [one(sums["overlap"], sums["total"], sums["present"] > 0) for one in DICE.values()]
        return mean(sums["error"], sums["points"]) + mean(sums["entropy"], sums["weight"]) + sum(dice)

    whole = loss_of(over_processes(sums_of(slice(0, 2))))
    (expected,) = torch.autograd.grad(whole, logits)
    found = torch.zeros_like(expected)
    for own, other in ((slice(0, 1), slice(1, 2)), (slice(1, 2), slice(0, 1))):
        others = torch.cat([value.detach().flatten() for value in sums_of(other).values()])
        monkeypatch.setattr("xr2ct.losses.sum_over_processes", lambda part, others=others: part + others)
        loss = loss_of(over_processes(sums_of(own)))
        torch.testing.assert_close(loss, whole)
        found += torch.autograd.grad(loss, logits)[0]
    torch.testing.assert_close(found, expected)


def total_loss(logits, label, annotated):
    log_probability = annotated_log_probabilities(logits, annotated)
    overlap, total = dice_sums(log_probability, label, annotated)
    entropy = mean(*entropy_sums(log_probability, label, annotated, torch.tensor([1.0, 2.0, 3.0, 4.0])))
    return entropy + sum(one(overlap, total, overlap > 0) for one in DICE.values())


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
