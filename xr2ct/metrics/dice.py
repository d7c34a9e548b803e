"""Overlap of two masks."""

from jaxtyping import Bool
from numpy import ndarray


def dice(true: Bool[ndarray, "z y x"], predicted: Bool[ndarray, "z y x"]) -> float:
    """2 |A and B| / (|A| + |B|): 1 for equal masks, 0 if one is empty, NaN if both are."""
    total = int(true.sum()) + int(predicted.sum())
    return 2 * int((true & predicted).sum()) / total if total else float("nan")
