"""Runs beside each other: which columns, which lines and which differences a table shows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from xr2ct.errors import UserError
from xr2ct.summary import ALL_STRUCTURES, DEFORMATIONS, Summary, difference, mean_over_cases, rank

CEILING = "true CT"
"""The name under which `xr2ct judge` scores the true CTs: what a perfect reconstruction would get."""

BASELINES = ("mean", "nearest")
"""Models that any other has to beat: their runs stand in every table."""


@dataclass(frozen=True)
class Column:
    """Heading of a metric family and the digits it is given with; `judged` if a segmenter found the structures."""

    label: str
    unit: str
    digits: int
    judged: bool = False

    @property
    def heading(self) -> str:
        return f"{self.label} {self.unit}".strip()


STRUCTURE = {
    "dice": Column("Dice", "", 3),
    "hd95": Column("HD95", "mm", 1),
    "chamfer": Column("Chamfer", "mm", 2),
}
"""What is measured per structure; of the distances less is better."""

SHOWN = {
    "psnr": Column("PSNR", "dB", 2),
    "ssim3d": Column("SSIM", "", 3),
    "mae": Column("MAE", "HU", 1),
    "dice": STRUCTURE["dice"],
    "hd95": STRUCTURE["hd95"],
}
"""Metric family -> column, as printed and in the report."""

COMPARED = {
    "psnr": SHOWN["psnr"],
    "psnr-inside": Column("PSNR inside", "dB", 2),
    "psnr-outside": Column("PSNR outside", "dB", 2),
    "ssim3d": SHOWN["ssim3d"],
    "dice": SHOWN["dice"],
}
"""The same for the tables that were asked for by name."""

JUDGES = {
    "nnunet": "nnU-Net",
    "totalsegmentator": "TotalSegmentator",
    "totalsegmentator-fast": "TotalSegmentator fast",
}
"""First part of the metric names of `xr2ct judge` -> name of the segmenter."""

JUDGED = {
    f"{judge}-{metric}": replace(column, label=f"{name} {column.label}", judged=True)
    for judge, name in JUDGES.items()
    for metric, column in STRUCTURE.items()
}
"""Metric family of a segmenter -> column, in every table that has numbers of it."""

FOUND = "what a segmenter finds in the reconstructions (HD95 and Chamfer: lower is better)"
"""Title of the part of a table that a segmenter judges."""


@dataclass(frozen=True)
class Line:
    """One row: the summaries of a run, or (`paired`) its difference from another, by metric family.

    `shares` gives per judged Dice the mean as a share of the true CTs', on the cases and structures that both have.
    """

    split: str
    simulator: str
    model: str
    found: Mapping[str, Summary]
    shares: Mapping[str, float]
    n_cases: int
    n_patients: int
    n_seeds: int
    paired: bool


@dataclass(frozen=True)
class Comparison:
    """One table: its title ("" for that of all runs), its columns by metric family, and its lines split by split."""

    title: str
    columns: dict[str, Column]
    lines: list[Line]


def read_title(text: str) -> tuple[str, tuple[str, ...]]:
    """Title and runs of "TITLE=run,run"."""
    title, _, listed = (part.strip() for part in text.rpartition("="))
    runs = tuple(run.strip() for run in listed.split(","))
    if not title or not all(runs):
        raise UserError(f'table is {text!r}, expected "TITLE=run,run". Give a title and the names of runs.')
    if len(set(runs)) < len(runs):
        raise UserError(f"table {title!r} names a run twice ({listed}), expected each once. Take one out.")
    return title, runs


def choose_runs(
    summaries: Sequence[Summary], title: str, runs: Sequence[str], baselines: Sequence[str] = ()
) -> list[Summary]:
    """The summaries of `runs` in their order, then those of the `baselines` that are not among them, and of the true CTs."""
    known = dict.fromkeys(summary.model for summary in summaries if summary.model != CEILING)
    if missing := [run for run in runs if run not in known]:
        raise UserError(
            f"table {title!r} names run {missing[0]!r}, expected runs of the evaluations: {', '.join(known)}. "
            "Give its evaluation, or take it out of the table."
        )
    order = list(dict.fromkeys([*runs, *baselines, CEILING]))
    return sorted((s for s in summaries if s.model in order), key=lambda s: (rank(s.split), order.index(s.model)))


def compare(summaries: Sequence[Summary], *, title: str = "", columns: Mapping[str, Column] = SHOWN) -> Comparison:
    """Per split one line per simulator and run, the true CTs last, then one per run after the first for its difference.

    Structures by their mean per case. Columns without any number are left out if they are not in SHOWN. A second window
    is refused.
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
    present = {family for runs in by_split.values() for found in runs.values() for family in found}
    lines = []
    for split, runs in by_split.items():
        lines += _lines(split, runs)
    shown = {family: column for family, column in {**columns, **JUDGED}.items() if family in SHOWN or family in present}
    return Comparison(title, shown, lines)


def parts(comparison: Comparison) -> list[Comparison]:
    """What the reconstructions themselves were measured for, without a title, and what segmenters find in them: each with
    the lines that have something of it."""
    split = []
    for judged, title in ((False, ""), (True, FOUND)):
        columns = {family: column for family, column in comparison.columns.items() if column.judged == judged}
        lines = [line for line in comparison.lines if columns.keys() & line.found.keys()]
        split += [Comparison(title, columns, lines)] if lines else []
    return split


def _lines(split: str, runs: Mapping[tuple[str, str], Mapping[str, Summary]]) -> list[Line]:
    own = [names for names in runs if names[1] != CEILING]
    ceilings = [names for names in runs if names[1] == CEILING]
    ceiling = {family: summary for names in ceilings for family, summary in runs[names].items()}
    lines = [_line(split, *names, runs[names], ceiling) for names in [*own, *ceilings]]
    if own:
        (simulator, model), first = own[0], runs[own[0]]
    for names in own[1:]:
        paired = {name: difference(runs[names][name], first[name]) for name in first if name in runs[names]}
        simulators = names[0] if names[0] == simulator else f"{names[0]} - {simulator}"
        lines.append(_line(split, simulators, f"{names[1]} - {model}", paired, {}, paired=True))
    return lines


def _line(
    split: str,
    simulator: str,
    model: str,
    found: Mapping[str, Summary],
    ceiling: Mapping[str, Summary],
    paired: bool = False,
) -> Line:
    def most(count: str) -> int:
        return max((getattr(summary, count) for summary in found.values()), default=0)

    return Line(
        *(split, simulator, model, found),
        shares={name: share(found[name], ceiling[name]) for name in ceiling if is_dice(name) and name in found},
        n_cases=most("n_cases"),
        n_patients=most("n_patients"),
        n_seeds=most("n_seeds"),
        paired=paired,
    )


def is_dice(family: str) -> bool:
    """Whether it is the Dice of the runs' own structures or of a segmenter's."""
    return family.split("-")[-1] == "dice"


def share(run: Summary, ceiling: Summary) -> float:
    """Mean of the run over that of the true CTs, both on the cases and structures that both have a number for."""
    numbers = [{about[:3] for about, value in s.values.items() if not math.isnan(value)} for s in (run, ceiling)]
    both = numbers[0] & numbers[1]
    own, best = (
        mean_over_cases({about: value for about, value in s.values.items() if about[:3] in both})
        for s in (run, ceiling)
    )
    return own / best if best else math.nan


def legacy_rows(summaries: Sequence[Summary]) -> list[tuple[Summary, int]]:
    """The metrics of other papers that a table shows, structures by their mean per case, and the digits of each."""
    return [(one, 3 if one.unit == "1" else 2) for one in summaries if one.structure in ("", ALL_STRUCTURES)]


def split_notes(lines: Sequence[Line | Summary]) -> dict[str, str]:
    """What has to be said of the intervals of a split, for the splits of which something has to be said."""
    patients: dict[str, int] = {}
    for line in lines:
        if line.split in DEFORMATIONS:
            patients[line.split] = max(line.n_patients, patients.get(line.split, 0))
    return {
        split: ("one patient's anatomy" if found < 2 else f"the anatomy of {found} patients")
        + ": intervals over deformations, not patients"
        for split, found in patients.items()
    }
