"""The terms of SPIDER's objective (eq. 24-26) for cases annotated for different structures.

Each term is a function of sums over the points of the batch, so that processes with a part of the batch each get the
loss of the whole: add their sums up (`over_processes`), then compute the terms.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xr2ct.distributed import sum_over_processes

IGNORE = 255
EPSILON = 1e-5


def annotated_log_probabilities(
    logits: Float[Tensor, "case point class"], annotated: Bool[Tensor, "case class"]
) -> Float[Tensor, "case point class"]:
    """Log softmax over the classes each case is annotated for (eq. 22, m:n = those classes); the others are -inf."""
    planes = logits.transpose(1, 2).contiguous()  # points innermost: a softmax over few classes is three times as fast
    return planes.masked_fill(~annotated[:, :, None], -torch.inf).log_softmax(dim=1).transpose(1, 2)


def absolute_sums(
    intensity: Float[Tensor, "case point"], target: Float[Tensor, "case point"], weight: Float[Tensor, "case point"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Of eq. 24: sum of weight |difference|, and the sum of the weights."""
    return (weight * (intensity - target).abs()).sum(), weight.sum()


def entropy_sums(
    log_probability: Float[Tensor, "case point class"],
    label: Int[Tensor, "case point"],
    annotated: Bool[Tensor, "case class"],
    weight: Float[Tensor, "class"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Sum of -weight log p(label) over the points whose label is known, and the sum of their weights."""
    target, known = _known(label, annotated)
    value = log_probability.gather(-1, target[..., None])[..., 0].masked_fill(~known, 0)
    weights = weight[target] * known
    return -(weights * value).sum(), weights.sum()


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


def presence(label: Int[Tensor, "case point"], classes: int) -> Float[Tensor, "class"]:
    """Points per class among the labels that are known."""
    return torch.bincount(label[label != IGNORE], minlength=classes).float()


def over_processes(sums: dict[str, Float[Tensor, "..."]]) -> dict[str, Float[Tensor, "..."]]:
    """The same sums over the batch of all processes, added up in one exchange."""
    whole = sum_over_processes(torch.cat([part.flatten() for part in sums.values()]))
    pieces = whole.split([part.numel() for part in sums.values()])
    return {name: piece.view_as(part) for (name, part), piece in zip(sums.items(), pieces, strict=True)}


def mean(total: Float[Tensor, ""], weight: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Weighted mean from its sums; 0 if nothing has a weight."""
    return total / weight.clamp(min=EPSILON)


def micro_dice_loss(
    overlap: Float[Tensor, "class"], total: Float[Tensor, "class"], present: Bool[Tensor, "class"]
) -> Float[Tensor, ""]:
    """Eq. 25: one Dice over all classes given, present or not, epsilon once above and below."""
    return 1 - (2 * overlap.sum() + EPSILON) / (total.sum() + EPSILON)


def class_dice_loss(
    overlap: Float[Tensor, "class"], total: Float[Tensor, "class"], present: Bool[Tensor, "class"]
) -> Float[Tensor, ""]:
    """Mean of 1 - Dice over the classes given that are present in the batch's labels; 0 if there is none."""
    dice = (2 * overlap + EPSILON) / (total + EPSILON)
    return ((1 - dice) * present).sum() / present.sum().clamp(min=1)


DICE = {"micro": micro_dice_loss, "class": class_dice_loss}
