"""How sure a mean over cases is, when cases of one patient belong together."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

RESAMPLES, SEED = 2000, 0
FEWEST_PATIENTS = 4
"""Below it no interval is given: n patients drawn anew are n times the same one with probability n^-n each, for 3 more
than 2.5 %, so that the percentiles would only be the range of what was seen."""


def bootstrap_interval(values: Float[ndarray, "case"], subjects: Sequence[str]) -> tuple[float, float]:
    """95 % percentile interval (not BCa) of the mean over cases when whole patients are drawn with replacement, seeded.

    Cases of one patient are not independent, so a patient is drawn with all of them. The order of rows is irrelevant.
    """
    names, index = np.unique(subjects, return_inverse=True)
    sums, counts = np.bincount(index, values), np.bincount(index)
    draws = np.random.default_rng(SEED).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
