"""The tables of a report as aligned text."""

import math
from collections.abc import Sequence
from pathlib import Path

from xr2ct.comparison import CEILING, Comparison, Line, split_notes
from xr2ct.metrics.interval import FEWEST_PATIENTS
from xr2ct.summary import COLUMNS, DEFORMATIONS, DIFFERENCES, SPLITS, Summary, read_scores, summarize
from xr2ct.tables import aligned, write_csv


def number(summary: Summary | None, digits: int, n_cases: int, sign: str = "", n_structures: int = 0) -> str:
    """Mean, +- its sd over seeds, and its interval, as it has them; the numbers of cases and of structures behind it where
    they are fewer than the line's."""
    if summary is None or not summary.n_cases:
        return "-"
    seeds = "" if math.isnan(summary.seed_sd) else f" +- {summary.seed_sd:.{digits}f}"
    interval = (
        "" if math.isnan(summary.low95) else f" [{summary.low95:{sign}.{digits}f}, {summary.high95:{sign}.{digits}f}]"
    )
    counts = {"case": (summary.n_cases, n_cases), "structure": (summary.n_structures, n_structures)}
    fewer = [f"{n} {noun}{'s' if n > 1 else ''}" for noun, (n, of_line) in counts.items() if 0 < n < of_line]
    counted = f" ({', '.join(fewer)})" if fewer else ""
    return f"{summary.mean:{sign}.{digits}f}{seeds}{interval}{counted}"


def format_table(comparison: Comparison) -> str:
    """The aligned text tables of means and of paired differences, with one sentence per split on what they mean."""
    lines = comparison.lines
    seeds = any(line.n_seeds > 1 for line in lines)
    runs, paired = ([line for line in lines if line.paired == wanted] for wanted in (False, True))
    text = [comparison.title] if comparison.title else []
    text += aligned(_rows(comparison, runs, seeds), left=3)
    if paired:
        text += ["", f"paired differences from the first run, same cases and structures (all pairs: {DIFFERENCES})"]
        text += aligned(_rows(comparison, paired, seeds), left=3)
    text.append("")
    notes = split_notes(lines)
    for split in dict.fromkeys(line.split for line in lines):
        text.append(f"{split}: {SPLITS.get(split, 'a split of your own')}")
        text += [f"{split}: {notes[split]}"] if split in notes else []
    if seeds:
        text.append("+-: standard deviation of the mean from seed to seed; [intervals] do not contain it")
    if any(line.model == CEILING for line in runs):
        text.append(f"{CEILING}: the segmenter on the CTs themselves, what a perfect reconstruction would get")
    text += _no_interval(runs)
    return "\n".join(text)


def _no_interval(runs: Sequence[Line]) -> list[str]:
    """Which splits are too small for intervals."""
    patients = [line.split for line in runs if line.split not in DEFORMATIONS and line.n_patients < FEWEST_PATIENTS]
    cases = [line.split for line in runs if line.split in DEFORMATIONS and line.n_cases < FEWEST_PATIENTS]
    return [
        f"no interval with fewer than {FEWEST_PATIENTS} {noun}: {', '.join(dict.fromkeys(splits))}"
        for noun, splits in (("patients", patients), ("cases", cases))
        if splits
    ]


def _rows(comparison: Comparison, lines: Sequence[Line], seeds: bool) -> list[list[str]]:
    """Head and cells; there is no share of the true CTs in a table of differences."""
    shares = any(line.shares for line in lines)
    head = ["split", "simulator", "run"]
    for family, column in comparison.columns.items():
        head.append(column.heading)
        head += ["structures"] if family == "dice" else []
        head += [f"% of {CEILING}"] if column.judged and shares else []
    head += ["cases / patients", *(["seeds"] if seeds else [])]
    return [head, *(_cells(line, comparison, seeds, shares) for line in lines)]


def _cells(line: Line, comparison: Comparison, seeds: bool, shares: bool) -> list[str]:
    cells = [line.split, line.simulator, line.model]
    dice = line.found.get("dice")
    n_structures = dice.n_structures if dice else 0
    for family, column in comparison.columns.items():
        summary = line.found.get(family)
        cells.append(number(summary, column.digits, line.n_cases, "+" if line.paired else "", n_structures))
        if family == "dice":  # over how many structures it is differs between models and cohorts
            cells.append(str(n_structures) if n_structures else "-")
        if column.judged and shares:
            share = line.shares.get(family, math.nan)
            cells.append("-" if math.isnan(share) else f"{100 * share:.0f}")
    return [*cells, f"{line.n_cases} / {line.n_patients}", *([str(line.n_seeds)] if seeds else [])]


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
