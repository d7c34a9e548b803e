"""Means over cases with an interval over patients, and paired differences, from the rows that `evaluate` writes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from xr2ct.errors import UserError
from xr2ct.evaluate import COLUMNS as SCORE_COLUMNS
from xr2ct.metrics.interval import FEWEST_PATIENTS, bootstrap_interval
from xr2ct.metrics.legacy import LEGACY_METRICS
from xr2ct.tables import aligned, read_csv, write_csv

COLUMNS = (
    *("split", "simulator", "model", "metric", "structure", "mean", "sd", "low95", "high95", "unit"),
    *("n_cases", "n_patients", "n_structures", "n_missing", "reason"),
)
DIFFERENCE_COLUMNS = (*COLUMNS[:3], "minus_simulator", "minus_model", *COLUMNS[3:])
DIFFERENCES = "differences.csv"
ALL_STRUCTURES = "mean_over_structures"
SPLITS = {
    "test": "unseen real patients",
    "validation": "real patients that were looked at during training, never trained on",
    "family": "same patient, new deformation: shows that the machinery works, not that it generalises",
    "family_validation": "same patient, new deformation, looked at during training",
    "train": "cases the model was trained on",
}
"""Every split in the order of tables, with what a number on it can mean."""


Value = tuple[str, str, str]
"""What one number is about: patient, case and structure ("" for a whole volume)."""


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
    n_structures: int
    n_missing: int
    reason: str
    values: Mapping[Value, float] = field(repr=False)  # NaN where missing


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
    order = list(SPLITS)
    ranked = sorted(groups.items(), key=lambda item: order.index(item[0][0]) if item[0][0] in order else len(order))
    return [_summary(key, members) for key, members in ranked]


def _summary(key: tuple[str, ...], rows: list[dict[str, str]]) -> Summary:
    values: dict[Value, float] = {}
    for row in rows:
        about = (row["subject"], row["case"], row["structure"])
        if about in values:
            raise UserError(
                f"run {row['model']!r} has {row['metric']} of case {row['case']!r} twice, expected once. "
                "Give the CSV of every run once, and every run its own name."
            )
        values[about] = float(row["value"])
    reasons = {row["reason"] for row in rows if math.isnan(float(row["value"]))}
    return Summary(*key, unit=rows[0]["unit"], values=values, **_statistics(values, reasons))


def _statistics(values: Mapping[Value, float], reasons: Iterable[str]) -> dict[str, float | int | str]:
    """Mean over cases (structures averaged per case first) with sd, interval and counts; `reasons` of missing values."""
    per_case: dict[tuple[str, str], list[float]] = {}
    structures = set()
    for (subject, case, structure), value in values.items():
        if not math.isnan(value):
            per_case.setdefault((subject, case), []).append(value)
            structures |= {structure} - {""}
    subjects = [subject for subject, _ in per_case]
    n_patients = len(set(subjects))
    means = np.array([sum(found) / len(found) for found in per_case.values()])
    finite = bool(np.isfinite(means).all())
    mean = low95 = high95 = sd = math.nan
    if not means.size:
        reason = "no value: " + "; ".join(sorted(reasons))
    elif not finite:
        reason = "a value is infinite"
        mean = float(sum(means.tolist()))
    else:
        reason = ""
        mean = float(means.mean())
        sd = float(np.std(means, ddof=1)) if len(means) > 1 else math.nan
        if n_patients < FEWEST_PATIENTS:
            reason = f"{n_patients} patient{'s' if n_patients > 1 else ''}, no interval"
        else:
            low95, high95 = bootstrap_interval(means, subjects)
    return {
        "mean": mean,
        "sd": sd,
        "low95": low95,
        "high95": high95,
        "n_cases": len(means),
        "n_patients": n_patients,
        "n_structures": len(structures),
        "n_missing": sum(map(math.isnan, values.values())),
        "reason": reason,
    }


@dataclass(frozen=True)
class Difference(Summary):
    """A run minus another (`minus_...`) on the cases and structures that both have; what not both have is missing."""

    minus_simulator: str
    minus_model: str


def difference(run: Summary, minus: Summary) -> Difference:
    """The paired difference of two summaries of one split, metric and structure."""
    values = {
        about: run.values.get(about, math.nan) - minus.values.get(about, math.nan)
        for about in {**run.values, **minus.values}
    }
    return Difference(
        *(run.split, run.simulator, run.model, run.metric, run.structure),
        unit=run.unit,
        values=values,
        minus_simulator=minus.simulator,
        minus_model=minus.model,
        **_statistics(values, ["no number in both runs"]),
    )


def differences(summaries: Sequence[Summary]) -> list[Difference]:
    """Of every two runs the later minus the earlier, per split, metric and structure."""
    groups: dict[tuple[str, ...], list[Summary]] = {}
    for summary in summaries:
        groups.setdefault((summary.split, summary.metric, summary.structure), []).append(summary)
    return [difference(later, earlier) for group in groups.values() for earlier, later in combinations(group, 2)]


def write_summary(path: Path, summaries: Sequence[Summary]) -> None:
    """The means, and the paired differences of all runs as differences.csv beside them."""
    write_csv(path, COLUMNS, map(vars, summaries))
    write_csv(path.with_name(DIFFERENCES), DIFFERENCE_COLUMNS, map(vars, differences(summaries)))


@dataclass(frozen=True)
class Line:
    """What one row of the printed table shows; None where a run has no such number. `paired` for a difference."""

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
    paired: bool


SHOWN = {
    "psnr": ("PSNR dB", 2),
    "ssim3d": ("SSIM", 3),
    "mae": ("MAE HU", 1),
    "dice": ("Dice", 3),
    "hd95": ("HD95 mm", 1),
}
"""Metric family -> heading and digits, as printed and in the report."""


def table(summaries: Sequence[Summary]) -> list[Line]:
    """Per split one line per simulator and run, then one per run after the first for its difference from the first.

    Structures by their mean per case. A second window is refused.
    """
    windows = {summary.metric for summary in summaries if summary.metric.startswith("psnr_")}
    if len(windows) > 1:
        found = " and ".join(sorted(windows))
        raise UserError(f"evaluations hold {found}, expected one of them. Evaluate all runs in one window.")
    by_split: dict[str, dict[tuple[str, str], dict[str, Summary]]] = {}
    for summary in summaries:
        if summary.structure in ("", ALL_STRUCTURES):
            run = by_split.setdefault(summary.split, {}).setdefault((summary.simulator, summary.model), {})
            run[summary.metric.split("_")[0]] = summary
    lines = []
    for split, runs in by_split.items():
        lines += [_line(split, *names, found) for names, found in runs.items()]
        (simulator, model), first = next(iter(runs.items()))
        for names, found in list(runs.items())[1:]:
            paired = {name: difference(found[name], first[name]) for name in first if name in found}
            simulators = names[0] if names[0] == simulator else f"{names[0]} - {simulator}"
            lines.append(_line(split, simulators, f"{names[1]} - {model}", paired, paired=True))
    return lines


def _line(split: str, simulator: str, model: str, found: Mapping[str, Summary], paired: bool = False) -> Line:
    return Line(
        *(split, simulator, model),
        **{name: found.get(name) for name in SHOWN},
        **{
            count: max((getattr(summary, count) for summary in found.values()), default=0)
            for count in ("n_cases", "n_patients")
        },
        paired=paired,
    )


def number(summary: Summary | None, digits: int, n_cases: int, sign: str = "") -> str:
    """The mean and its interval, if it has one, with its own number of cases where that differs from the line's."""
    if summary is None or not summary.n_cases:
        return "-"
    interval = (
        "" if math.isnan(summary.low95) else f" [{summary.low95:{sign}.{digits}f}, {summary.high95:{sign}.{digits}f}]"
    )
    fewer = f" ({summary.n_cases} case{'s' if summary.n_cases > 1 else ''})" if summary.n_cases < n_cases else ""
    return f"{summary.mean:{sign}.{digits}f}{interval}{fewer}"


def format_table(lines: Sequence[Line]) -> str:
    """The aligned text tables of means and of paired differences, with one sentence per split on what they mean."""
    head = ["split", "simulator", "run", *_beside_dice([heading for heading, _ in SHOWN.values()], "structures")]
    head.append("cases / patients")
    runs, paired = ([line for line in lines if line.paired == wanted] for wanted in (False, True))
    text = aligned([head, *map(_cells, runs)], left=3)
    if paired:
        text += ["", f"paired differences from the first run, same cases and structures (all pairs: {DIFFERENCES})"]
        text += aligned([head, *map(_cells, paired)], left=3)
    splits = dict.fromkeys(line.split for line in lines)
    text += ["", *(f"{split}: {SPLITS.get(split, 'a split of your own')}" for split in splits)]
    few = [line.split for line in runs if line.n_patients < FEWEST_PATIENTS]
    if few:
        text.append(f"no interval with fewer than {FEWEST_PATIENTS} patients: {', '.join(dict.fromkeys(few))}")
    return "\n".join(text)


def _cells(line: Line) -> list[str]:
    sign = "+" if line.paired else ""
    shown = [number(getattr(line, name), digits, line.n_cases, sign) for name, (_, digits) in SHOWN.items()]
    structures = str(line.dice.n_structures) if line.dice and line.dice.n_structures else "-"
    names = [line.split, line.simulator, line.model]
    return [*names, *_beside_dice(shown, structures), f"{line.n_cases} / {line.n_patients}"]


def _beside_dice(cells: Sequence[str], structures: str) -> list[str]:
    """Insert over how many structures the Dice is, which differs between models and cohorts."""
    place = list(SHOWN).index("dice") + 1
    return [*cells[:place], structures, *cells[place:]]


def legacy_table(evaluations: Sequence[Path], out: Path) -> str:
    """Write the means of the legacy metrics as `out` and give them as text; "", and no file, if none was computed."""
    summaries = summarize(read_scores(evaluations, legacy=True))
    if not summaries:
        out.unlink(missing_ok=True)
        return ""
    write_csv(out, COLUMNS, map(vars, summaries))
    rows = [["split", "simulator", "run", "metric of other papers", "mean", "cases / patients"]]
    for summary in summaries:
        digits, counts = 2 if summary.unit == "dB" else 3, f"{summary.n_cases} / {summary.n_patients}"
        shown = number(summary, digits, summary.n_cases)
        rows.append([summary.split, summary.simulator, summary.model, summary.metric, shown, counts])
    return "\n".join(aligned(rows, left=4))
