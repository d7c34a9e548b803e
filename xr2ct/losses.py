"""The terms of SPIDER's objective (eq. 24-26) for cases annotated for different structures."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

IGNORE = 255
EPSILON = 1e-5


def annotated_log_probabilities(
    logits: Float[Tensor, "case point class"], annotated: Bool[Tensor, "case class"]
) -> Float[Tensor, "case point class"]:
    """Log softmax over the classes each case is annotated for (eq. 22, m:n = those classes); the others are -inf."""
    return logits.masked_fill(~annotated[:, None], -torch.inf).log_softmax(dim=-1)


def cross_entropy(
    log_probability: Float[Tensor, "case point class"],
    label: Int[Tensor, "case point"],
    annotated: Bool[Tensor, "case class"],
    weight: Float[Tensor, "class"],
) -> Float[Tensor, ""]:
    """Class-weighted mean over the points whose label is known; 0 if there is none."""
    target, known = _known(label, annotated)
    value = log_probability.gather(-1, target[..., None])[..., 0].masked_fill(~known, 0)
    weights = weight[target] * known
    return -(weights * value).sum() / weights.sum().clamp(min=EPSILON)


def dice_sums(
    log_probability: Float[Tensor, "case point class"],
    label: Int[Tensor, "case point"],
    annotated: Bool[Tensor, "case class"],
) -> tuple[Float[Tensor, "class"], Float[Tensor, "class"]]:
    """Per class, over all points of the batch: sum of p y, and sum of p + y, from the cases annotated for the class."""
    target, known = _known(label, annotated)
    probability = (log_probability.exp() * (label != IGNORE)[..., None]).sum(dim=(0, 1))
    of_target = log_probability.gather(-1, target[..., None])[..., 0].exp() * known
    overlap = torch.zeros_like(probability).index_add(0, target.flatten(), of_target.flatten())
    return overlap, probability + torch.bincount(target[known], minlength=len(probability))


def _known(
    label: Int[Tensor, "case point"], annotated: Bool[Tensor, "case class"]
) -> tuple[Int[Tensor, "case point"], Bool[Tensor, "case point"]]:
    """Label with 0 in place of IGNORE, and where it is a class that the case is annotated for."""
    target = torch.where(label == IGNORE, 0, label)
    return target, (label != IGNORE) & annotated.gather(1, target)


def micro_dice_loss(overlap: Float[Tensor, "class"], total: Float[Tensor, "class"]) -> Float[Tensor, ""]:
    """Eq. 25 as written: one Dice over all classes, background included, epsilon once above and below."""
    return 1 - (2 * overlap.sum() + EPSILON) / (total.sum() + EPSILON)


def class_dice_loss(
    overlap: Float[Tensor, "class"], total: Float[Tensor, "class"], present: Bool[Tensor, "class"]
) -> Float[Tensor, ""]:
    """Mean of 1 - Dice over the structures (not background) present in the batch's labels; 0 if there is none."""
    counted = present.clone()
    counted[0] = False
    dice = (2 * overlap + EPSILON) / (total + EPSILON)
    return ((1 - dice) * counted).sum() / counted.sum().clamp(min=1)
