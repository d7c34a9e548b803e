"""Means over cases with an interval over patients, from the rows that `evaluate` writes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from xr2ct.errors import UserError
from xr2ct.evaluate import COLUMNS as SCORE_COLUMNS
from xr2ct.tables import read_csv, write_csv

COLUMNS = (
    *("split", "simulator", "model", "metric", "structure", "mean", "sd", "low95", "high95", "unit"),
    *("n_cases", "n_patients", "n_missing", "reason"),
)
ALL_STRUCTURES = "mean_over_structures"
RESAMPLES, SEED = 2000, 0
SPLITS = {
    "test": "unseen real patients",
    "validation": "real patients that were looked at during training, never trained on",
    "family": "same patient, new deformation: shows that the machinery works, not that it generalises",
    "family_validation": "same patient, new deformation, looked at during training",
    "train": "cases the model was trained on",
}
"""Every split in the order of tables, with what a number on it can mean."""


@dataclass(frozen=True)
class Summary:
    """One line; `n_missing` counts the NaN values left out of the mean, `reason` says why a number is NaN."""

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
    n_missing: int
    reason: str


def read_scores(paths: Sequence[Path]) -> list[dict[str, str]]:
    return [row for path in paths for row in read_csv(path, SCORE_COLUMNS)]


def summarize(rows: Iterable[dict[str, str]]) -> list[Summary]:
    """One Summary per (split, simulator, model, metric, structure), splits as in SPLITS, the rest as first met."""
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        key = (row["split"], row["simulator"], row["model"], row["metric"])
        groups.setdefault((*key, row["structure"]), []).append(row)
        if row["structure"]:
            groups.setdefault((*key, ALL_STRUCTURES), []).append(row)
    order = list(SPLITS)
    ranked = sorted(groups.items(), key=lambda item: order.index(item[0][0]) if item[0][0] in order else len(order))
    return [_summary(key, members) for key, members in ranked]


def _summary(key: tuple[str, ...], rows: list[dict[str, str]]) -> Summary:
    per_case: dict[tuple[str, str], list[float]] = {}
    values = [(row["subject"], row["case"], float(row["value"])) for row in rows]
    for subject, case, value in values:
        if not math.isnan(value):
            per_case.setdefault((subject, case), []).append(value)
    subjects = [subject for subject, _ in per_case]
    means = np.array([np.mean(found) for found in per_case.values()])
    missing = sum(math.isnan(value) for *_, value in values)
    finite = bool(means.size) and bool(np.isfinite(means).all())
    low95 = high95 = sd = math.nan
    if not means.size:
        reason = "no value: " + "; ".join(sorted({row["reason"] for row in rows}))
    elif not finite:
        reason = "a value is infinite"
    elif len(set(subjects)) == 1:
        reason = "one patient"
    else:
        reason = ""
        low95, high95 = bootstrap_interval(means, subjects)
    if finite and len(means) > 1:
        sd = float(np.std(means, ddof=1))
    return Summary(
        *key,
        mean=float(means.mean()) if means.size else math.nan,
        sd=sd,
        low95=low95,
        high95=high95,
        unit=rows[0]["unit"],
        n_cases=len(means),
        n_patients=len(set(subjects)),
        n_missing=missing,
        reason=reason,
    )


def bootstrap_interval(values: Float[ndarray, "case"], subjects: Sequence[str]) -> tuple[float, float]:
    """95 % percentile interval of the mean over cases when whole patients are drawn with replacement (seeded).

    Cases of one patient are not independent, so a patient is drawn with all of them. The order of rows is irrelevant.
    """
    names, index = np.unique(subjects, return_inverse=True)
    sums, counts = np.bincount(index, values), np.bincount(index)
    draws = np.random.default_rng(SEED).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def write_summary(path: Path, summaries: Sequence[Summary]) -> None:
    write_csv(path, COLUMNS, map(vars, summaries))


@dataclass(frozen=True)
class Line:
    """What one row of the printed table shows; None where a run has no such number."""

    split: str
    simulator: str
    model: str
    psnr: Summary | None
    ssim3d: Summary | None
    mae: Summary | None
    dice: Summary | None
    hd95: Summary | None
    n_cases: int
    n_patients: int


SHOWN = {
    "psnr": ("PSNR dB", 2),
    "ssim3d": ("SSIM", 3),
    "mae": ("MAE HU", 1),
    "dice": ("Dice", 3),
    "hd95": ("HD95 mm", 1),
}
"""Metric family -> heading and digits, as printed and in the report."""


def table(summaries: Sequence[Summary]) -> list[Line]:
    """One line per split, simulator and run; structures by their mean per case. A second window is refused."""
    windows = {summary.metric for summary in summaries if summary.metric.startswith("psnr_")}
    if len(windows) > 1:
        found = " and ".join(sorted(windows))
        raise UserError(f"evaluations hold {found}, expected one of them. Evaluate all runs in one window.")
    lines: dict[tuple[str, ...], dict[str, Summary]] = {}
    for summary in summaries:
        if summary.structure in ("", ALL_STRUCTURES):
            line = lines.setdefault((summary.split, summary.simulator, summary.model), {})
            line[summary.metric.split("_")[0]] = summary
    return [
        Line(
            *key,
            **{name: found.get(name) for name in SHOWN},
            n_cases=max(summary.n_cases for summary in found.values()),
            n_patients=max(summary.n_patients for summary in found.values()),
        )
        for key, found in lines.items()
    ]


def number(summary: Summary | None, digits: int, n_cases: int) -> str:
    """The mean, with its own number of cases where that differs from the line's."""
    if summary is None or not summary.n_cases:
        return "-"
    fewer = f" ({summary.n_cases} case{'s' if summary.n_cases > 1 else ''})" if summary.n_cases < n_cases else ""
    return f"{summary.mean:.{digits}f}{fewer}"


def format_table(lines: Sequence[Line]) -> str:
    """The aligned text table, with one sentence per split on what its numbers mean."""
    head = ["split", "simulator", "run", *(heading for heading, _ in SHOWN.values()), "cases / patients"]
    body = [
        [line.split, line.simulator, line.model]
        + [number(getattr(line, name), digits, line.n_cases) for name, (_, digits) in SHOWN.items()]
        + [f"{line.n_cases} / {line.n_patients}"]
        for line in lines
    ]
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    splits = dict.fromkeys(line.split for line in lines)
    explained = [f"{split}: {SPLITS.get(split, 'a split of your own')}" for split in splits]
    return "\n".join([*(_align(row, widths) for row in [head, *body]), "", *explained])


def _align(row: Sequence[str], widths: Sequence[int]) -> str:
    """The three names to the left, numbers to the right."""
    cells = [text.ljust(w) if i < 3 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))]
    return "  ".join(cells).rstrip()
