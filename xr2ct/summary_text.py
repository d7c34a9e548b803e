"""The tables of a report as aligned text."""

import math
from collections.abc import Mapping, Sequence

from xr2ct.comparison import CEILING, STRUCTURE, Column, Comparison, Line, is_dice, legacy_rows, parts, split_notes
from xr2ct.metrics.interval import FEWEST_PATIENTS
from xr2ct.structure_tables import StructureTable
from xr2ct.summary import DEFORMATIONS, DIFFERENCES, SPLITS, Summary
from xr2ct.tables import aligned


def number(summary: Summary | None, digits: int, n_cases: int, sign: str = "", n_structures: int = 0) -> str:
    """Mean, +- its sd over seeds, and its interval, as it has them; the numbers of cases and of structures behind it where
    they are fewer than the line's."""
    if summary is None or not summary.n_cases:
        return "-"
    seeds = "" if math.isnan(summary.seed_sd) else f" +- {summary.seed_sd:.{digits}f}"
    interval = (
        "" if math.isnan(summary.low95) else f" [{summary.low95:{sign}.{digits}f}, {summary.high95:{sign}.{digits}f}]"
    )
    return f"{summary.mean:{sign}.{digits}f}{seeds}{interval}{_fewer(summary, n_cases, n_structures)}"


def _fewer(summary: Summary, n_cases: int, n_structures: int = 0) -> str:
    counts = {"case": (summary.n_cases, n_cases), "structure": (summary.n_structures, n_structures)}
    fewer = [f"{n} {noun}{'s' if n > 1 else ''}" for noun, (n, of_line) in counts.items() if 0 < n < of_line]
    return f" ({', '.join(fewer)})" if fewer else ""


def format_table(comparison: Comparison) -> str:
    """The aligned text tables of means and of paired differences, with one sentence per split on what they mean."""
    text = [comparison.title] if comparison.title else []
    text.append("\n\n".join(map(_part, parts(comparison))))
    return "\n".join([*text, *_notes([line for line in comparison.lines if not line.paired])])


def _part(part: Comparison) -> str:
    seeds = any(line.n_seeds > 1 for line in part.lines)
    runs, paired = ([line for line in part.lines if line.paired == wanted] for wanted in (False, True))
    text = [part.title] if part.title else []
    text += aligned(_rows(part, runs, seeds), left=3)
    if paired:
        text += ["", f"paired differences from the first run, same cases and structures (all pairs: {DIFFERENCES})"]
        text += aligned(_rows(part, paired, seeds), left=3)
    return "\n".join(text)


def _rows(part: Comparison, lines: Sequence[Line], seeds: bool) -> list[list[str]]:
    """Head and cells; there is no share of the true CTs in a table of differences."""
    shared = {family for line in lines for family in line.shares}
    head = ["split", "simulator", "run"]
    for family, column in part.columns.items():
        head.append(column.heading)
        head += ["structures"] if is_dice(family) else []
        head += [f"% of {CEILING}"] if family in shared else []
    head += ["cases / patients", *(["seeds"] if seeds else [])]
    return [head, *(_cells(line, part.columns, seeds, shared) for line in lines)]


def _cells(line: Line, columns: Mapping[str, Column], seeds: bool, shared: set[str]) -> list[str]:
    cells = [line.split, line.simulator, line.model]
    n_structures = 0
    for family, column in columns.items():
        summary = line.found.get(family)
        if is_dice(family):  # over how many structures it is differs between models and cohorts
            n_structures = summary.n_structures if summary else 0
        cells.append(number(summary, column.digits, line.n_cases, "+" if line.paired else "", n_structures))
        if is_dice(family):
            cells.append(str(n_structures) if n_structures else "-")
        if family in shared:
            share = line.shares.get(family, math.nan)
            cells.append("-" if math.isnan(share) else f"{100 * share:.0f}")
    return [*cells, f"{line.n_cases} / {line.n_patients}", *([str(line.n_seeds)] if seeds else [])]


def _notes(lines: Sequence[Line | Summary]) -> list[str]:
    """What has to be known to read a table of these runs, after an empty line."""
    text = ["", *_splits(lines)]
    if any(line.n_seeds > 1 for line in lines):
        text.append("+-: standard deviation of the mean from seed to seed; [intervals] do not contain it")
    if any(line.model == CEILING for line in lines):
        text.append(f"{CEILING}: the segmenter on the CTs themselves, what a perfect reconstruction would get")
    return text + _no_interval(lines)


def _splits(lines: Sequence[Line | Summary]) -> list[str]:
    """One sentence per split on what its numbers mean, and whose anatomy they are of where that has to be said."""
    notes, text = split_notes(lines), []
    for split in dict.fromkeys(line.split for line in lines):
        text.append(f"{split}: {SPLITS.get(split, 'a split of your own')}")
        text += [f"{split}: {notes[split]}"] if split in notes else []
    return text


def _no_interval(lines: Sequence[Line | Summary]) -> list[str]:
    """Which splits are too small for intervals."""
    patients = [
        line.split for line in lines if line.split not in DEFORMATIONS and 0 < line.n_patients < FEWEST_PATIENTS
    ]
    cases = [line.split for line in lines if line.split in DEFORMATIONS and 0 < line.n_cases < FEWEST_PATIENTS]
    return [
        f"no interval with fewer than {FEWEST_PATIENTS} {noun}: {', '.join(dict.fromkeys(splits))}"
        for noun, splits in (("patients", patients), ("cases", cases))
        if splits
    ]


def format_structures(table: StructureTable) -> str:
    """A row per metric and structure, a column per run: means alone, and over how many cases where they are fewer than those
    of the Dice."""
    rows = [["metric", "structure", *table.runs]]
    for metric, column in STRUCTURE.items():
        for name, cells in table.rows:
            rows.append([column.heading, name, *(_mean(cell, metric, column.digits) for cell in cells)])
    title = f"{table.split}: every structure as {table.judge} finds it (means; their intervals: summary.csv)"
    return "\n".join([title, *aligned(rows, left=2), "", *_splits([cell["dice"] for cell in table.rows[0][1] if cell])])


def _mean(cell: Mapping[str, Summary], metric: str, digits: int) -> str:
    if metric not in cell or not cell[metric].n_cases:
        return "-"
    return f"{cell[metric].mean:.{digits}f}{_fewer(cell[metric], cell['dice'].n_cases)}"


def legacy_table(summaries: Sequence[Summary]) -> str:
    """The means of the metrics of other papers as text."""
    rows = [["split", "simulator", "run", "metric of other papers", "unit", "mean", "cases / patients"]]
    for summary, digits in legacy_rows(summaries):
        about = [summary.split, summary.simulator, summary.model, summary.metric, summary.unit.removeprefix("1")]
        shown = number(summary, digits, summary.n_cases)
        rows.append([*about, shown, f"{summary.n_cases} / {summary.n_patients}"])
    return "\n".join([*aligned(rows, left=5), *_notes(summaries)])
