"""Means over cases with an interval over patients, and paired differences, from the rows of `evaluate` and `judge`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from xr2ct.errors import UserError
from xr2ct.evaluate import COLUMNS as SCORE_COLUMNS
from xr2ct.metrics.interval import FEWEST_PATIENTS, bootstrap_interval
from xr2ct.metrics.legacy import LEGACY_METRICS
from xr2ct.tables import read_csv, write_csv

COLUMNS = (
    *("split", "simulator", "model", "metric", "structure", "mean", "sd", "low95", "high95", "unit"),
    *("n_cases", "n_patients", "n_structures", "n_missing", "n_seeds", "seed_sd", "reason"),
)
DIFFERENCE_COLUMNS = (*COLUMNS[:3], "minus_simulator", "minus_model", *COLUMNS[3:])
DIFFERENCES = "differences.csv"
ALL_STRUCTURES = "mean_over_structures"
SPLITS = {
    "test": "unseen real patients",
    "validation": "real patients that were looked at during training, never trained on",
    "family": "same patient, new deformation: shows that the machinery works, not that it generalises",
    "family_transfer": "same patient, another kind of deformation; a run that was trained on it is fitted to its CT, which is "
    "no reconstruction",
    "family_validation": "same patient, new deformation, looked at during training",
    "train": "cases the model was trained on",
}
"""Every split in the order of tables, with what a number on it can mean."""


DEFORMATIONS = ("family", "family_transfer", "family_validation")
"""Splits of deformed copies of one patient: their intervals are over cases, for there are no patients to draw."""

Value = tuple[str, str, str, str]
"""What one number is about: patient, case, structure ("" for a whole volume) and seed ("" if the run has none)."""


@dataclass(frozen=True)
class Summary:
    """One line; `n_missing` counts the NaN values left out of the mean, `reason` says why a number is NaN.

    `seed_sd` is the standard deviation of the mean from seed to seed, NaN for one seed.
    """

    split: str
    simulator: str
    model: str
    metric: str
    structure: str
    mean: float
    sd: float
    low95: float
    high95: float
    unit: str
    n_cases: int
    n_patients: int
    n_structures: int
    n_missing: int
    n_seeds: int
    seed_sd: float
    reason: str
    values: Mapping[Value, float] = field(repr=False)  # NaN where missing
    seed_means: Mapping[str, float] = field(repr=False)


def read_scores(paths: Sequence[Path], *, legacy: bool = False) -> list[dict[str, str]]:
    """The rows of the legacy metrics, or of all others: the two never share a table."""
    rows = [row for path in paths for row in read_csv(path, SCORE_COLUMNS)]
    return [row for row in rows if (row["metric"] in LEGACY_METRICS) == legacy]


def summarize(rows: Iterable[dict[str, str]]) -> list[Summary]:
    """One Summary per (split, simulator, model, metric, structure), splits as in SPLITS, the rest as first met."""
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        key = (row["split"], row["simulator"], row["model"], row["metric"])
        groups.setdefault((*key, row["structure"]), []).append(row)
        if row["structure"]:
            groups.setdefault((*key, ALL_STRUCTURES), []).append(row)
    return [_summary(key, members) for key, members in sorted(groups.items(), key=lambda item: rank(item[0][0]))]


def rank(split: str) -> int:
    """The place of a split in tables."""
    return list(SPLITS).index(split) if split in SPLITS else len(SPLITS)


def _summary(key: tuple[str, ...], rows: list[dict[str, str]]) -> Summary:
    values: dict[Value, float] = {}
    for row in rows:
        about = (row["subject"], row["case"], row["structure"], row["seed"])
        if about in values:
            raise UserError(
                f"run {row['model']!r} has {row['metric']} of case {row['case']!r} twice, expected once. "
                "Give the CSV of every run once, and every run its own name."
            )
        values[about] = float(row["value"])
    reasons = {row["reason"] for row in rows if math.isnan(float(row["value"]))}
    return Summary(*key, unit=rows[0]["unit"], values=values, **_statistics(values, key[0], reasons))


def _statistics(values: Mapping[Value, float], split: str, reasons: Iterable[str]) -> dict[str, Any]:
    """Mean over cases (structures, then seeds averaged per case first) with what belongs to it.

    `reasons` say why values are missing.
    """
    per_case = _per_case(values)
    structures = {structure for (_, _, structure, _), value in values.items() if not math.isnan(value)} - {""}
    seeds = dict.fromkeys(seed for by_seed in per_case.values() for seed in by_seed)
    seed_means = {seed: _mean([by_seed[seed] for by_seed in per_case.values() if seed in by_seed]) for seed in seeds}
    means = np.array([_mean(list(by_seed.values())) for by_seed in per_case.values()])
    n_patients = len({subject for subject, _ in per_case})
    drawn = [f"{subject} {case}" if split in DEFORMATIONS else subject for subject, case in per_case]
    n_drawn = len(set(drawn))
    mean = low95 = high95 = sd = seed_sd = math.nan
    if not means.size:
        reason = "no value: " + "; ".join(sorted(reasons))
    elif not np.isfinite(means).all():
        reason = "a value is infinite"
        mean = float(sum(means.tolist()))
    else:
        reason = ""
        mean = float(means.mean())
        sd, seed_sd = _sd(means), _sd(list(seed_means.values()))
        if n_drawn < FEWEST_PATIENTS:
            noun = "case" if split in DEFORMATIONS else "patient"
            reason = f"{n_drawn} {noun}{'s' if n_drawn > 1 else ''}, no interval"
        else:
            low95, high95 = bootstrap_interval(means, drawn)
    return {
        "mean": mean,
        "sd": sd,
        "low95": low95,
        "high95": high95,
        "n_cases": len(means),
        "n_patients": n_patients,
        "n_structures": len(structures),
        "n_missing": sum(map(math.isnan, values.values())),
        "n_seeds": len(seeds),
        "seed_sd": seed_sd,
        "seed_means": seed_means,
        "reason": reason,
    }


def _per_case(values: Mapping[Value, float]) -> dict[tuple[str, str], dict[str, float]]:
    """(patient, case) -> seed -> mean over structures, of what is not missing."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for (subject, case, _, seed), value in values.items():
        if not math.isnan(value):
            found.setdefault((subject, case), {}).setdefault(seed, []).append(value)
    return {who: {seed: _mean(numbers) for seed, numbers in by_seed.items()} for who, by_seed in found.items()}


def mean_over_cases(values: Mapping[Value, float]) -> float:
    """Structures, then seeds, then cases averaged; NaN where nothing is left."""
    means = [_mean(list(by_seed.values())) for by_seed in _per_case(values).values()]
    return _mean(means) if means else math.nan


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _sd(numbers: Sequence[float] | ndarray) -> float:
    return float(np.std(numbers, ddof=1)) if len(numbers) > 1 else math.nan


@dataclass(frozen=True)
class Difference(Summary):
    """A run minus another (`minus_...`) on the cases and structures that both have; what not both have is missing."""

    minus_simulator: str
    minus_model: str


def difference(run: Summary, minus: Summary) -> Difference:
    """The paired difference of two summaries of one split, metric and structure."""
    ours, theirs = _same_seeds(run.values, minus.values)
    values = {about: ours.get(about, math.nan) - theirs.get(about, math.nan) for about in {**ours, **theirs}}
    return Difference(
        *(run.split, run.simulator, run.model, run.metric, run.structure),
        unit=run.unit,
        values=values,
        minus_simulator=minus.simulator,
        minus_model=minus.model,
        **_statistics(values, run.split, ["no number in both runs"]),
    )


def _same_seeds(a: Mapping[Value, float], b: Mapping[Value, float]) -> tuple[Mapping[Value, float], ...]:
    """Both runs seed by seed if they have the same seeds or one of them a single one; else both averaged over theirs."""
    seeds_a, seeds_b = (dict.fromkeys(seed for *_, seed in values) for values in (a, b))
    if seeds_a == seeds_b:
        return a, b
    if len(seeds_b) == 1:
        return a, _repeated(b, seeds_a)
    if len(seeds_a) == 1:
        return _repeated(a, seeds_b), b
    return _over_seeds(a), _over_seeds(b)


def _repeated(values: Mapping[Value, float], seeds: Iterable[str]) -> dict[Value, float]:
    """The one seed of a run under the name of each of `seeds`."""
    return {(*about, seed): value for seed in seeds for (*about, _), value in values.items()}


def _over_seeds(values: Mapping[Value, float]) -> dict[Value, float]:
    """Every case and structure as its mean over the seeds that have it."""
    found: dict[Value, list[float]] = {}
    for (*about, _), value in values.items():
        found.setdefault((*about, ""), []).extend([] if math.isnan(value) else [value])
    return {about: _mean(numbers) if numbers else math.nan for about, numbers in found.items()}


def differences(summaries: Sequence[Summary]) -> list[Difference]:
    """Of every two runs the later minus the earlier, per split, metric and structure."""
    groups: dict[tuple[str, ...], list[Summary]] = {}
    for summary in summaries:
        groups.setdefault((summary.split, summary.metric, summary.structure), []).append(summary)
    return [difference(later, earlier) for group in groups.values() for earlier, later in combinations(group, 2)]


def write_legacy(path: Path, summaries: Sequence[Summary]) -> None:
    """The means of the metrics of other papers; without any, no file, not even that of an earlier report."""
    if summaries:
        write_csv(path, COLUMNS, map(vars, summaries))
    else:
        path.unlink(missing_ok=True)


def write_summary(path: Path, summaries: Sequence[Summary]) -> None:
    """The means, and the paired differences of all runs as differences.csv beside them."""
    write_csv(path, COLUMNS, map(vars, summaries))
    write_csv(path.with_name(DIFFERENCES), DIFFERENCE_COLUMNS, map(vars, differences(summaries)))
