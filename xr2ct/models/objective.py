"""SPIDER's objective (eq. 24-26) of the points of one step, weighted by the settings."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from xr2ct import losses
from xr2ct.models.spider_settings import SpiderSettings


@dataclass(frozen=True)
class Intensities:
    """Predicted and true, on the window mapped to [0, 1], and the weight of the error at each point."""

    predicted: Float[Tensor, "case point"]
    true: Float[Tensor, "case point"]
    weight: Float[Tensor, "case point"]


@dataclass(frozen=True)
class Structures:
    """Predicted logits, the true classes, which of them each case is annotated for, and the weight of each class."""

    logits: Float[Tensor, "case point class"]
    label: Int[Tensor, "case point"]
    annotated: Bool[Tensor, "case class"]
    weight: Float[Tensor, "class"]


def objective(
    settings: SpiderSettings,
    intensities: Intensities,
    structures: Structures | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """The parts and their weighted sum "loss", of the batch of all processes; without structures the intensity alone."""
    sums = {}
    error = losses.absolute_sums(intensities.predicted, intensities.true, intensities.weight)
    sums["error"], sums["error_weight"] = error
    if structures:
        label, annotated = structures.label, structures.annotated
        log_probability = losses.annotated_log_probabilities(structures.logits, annotated)
        sums["overlap"], sums["total"] = losses.dice_sums(log_probability, label, annotated)
        sums["present"] = losses.presence(label, len(structures.weight))
        entropy = losses.entropy_sums(log_probability, label, annotated, structures.weight)
        sums["entropy"], sums["weight"] = entropy
    whole = losses.over_processes(sums)

    parts = {"intensity": losses.mean(whole["error"], whole["error_weight"])}
    if structures:
        first = 0 if settings.dice_background else 1
        overlap, total, present = (whole[name][first:] for name in ("overlap", "total", "present"))
        parts["dice"] = losses.DICE[settings.dice](overlap, total, present > 0)
        parts["entropy"] = losses.mean(whole["entropy"], whole["weight"])
    weights = {
        "intensity": settings.intensity_weight,
        "dice": settings.dice_weight,
        "entropy": settings.entropy_weight,
    }
    return {"loss": sum(weights[name] * part for name, part in parts.items())} | parts
