"""Dice, HD95 and Chamfer of every structure, one table per split and segmenter."""

from collections.abc import Sequence
from dataclasses import dataclass

from xr2ct.comparison import CEILING, JUDGES, STRUCTURE
from xr2ct.summary import ALL_STRUCTURES, Summary


@dataclass(frozen=True)
class StructureTable:
    """Per structure the summaries of each run (true CTs last), by "dice", "hd95" and "chamfer".

    `judge` is "" for the runs' own structures.
    """

    split: str
    judge: str
    runs: list[str]
    rows: list[tuple[str, list[dict[str, Summary]]]]


def structure_tables(summaries: Sequence[Summary]) -> list[StructureTable]:
    """The tables of the runs that have structures in a split: those they predict, then those that judges found."""
    splits = dict.fromkeys(summary.split for summary in summaries)
    judges = {"": "", **{f"{judge}-": name for judge, name in JUDGES.items()}}
    tables = [_table(summaries, split, prefix, name) for split in splits for prefix, name in judges.items()]
    return [table for table in tables if table.rows]


def _table(summaries: Sequence[Summary], split: str, prefix: str, judge: str) -> StructureTable:
    by_run: dict[str, dict[str, dict[str, Summary]]] = {}
    metrics = {f"{prefix}{metric}": metric for metric in STRUCTURE}
    for summary in summaries:
        if summary.split == split and summary.structure not in ("", ALL_STRUCTURES) and summary.metric in metrics:
            rows = by_run.setdefault(summary.model, {})
            rows.setdefault(summary.structure, {})[metrics[summary.metric]] = summary
    runs = sorted(by_run, key=lambda run: run == CEILING)
    kept = {run: by_run[run] for run in runs if any(found["dice"].n_cases for found in by_run[run].values())}
    structures = list(dict.fromkeys(name for rows in kept.values() for name in rows))
    rows = [(name, [by_structure.get(name, {}) for by_structure in kept.values()]) for name in structures]
    return StructureTable(split, judge, list(kept), rows)
