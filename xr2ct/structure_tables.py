"""Dice and HD95 of every structure, one table per split and segmenter."""

from collections.abc import Sequence
from dataclasses import dataclass

from xr2ct.comparison import JUDGES
from xr2ct.summary import ALL_STRUCTURES, Summary


@dataclass(frozen=True)
class StructureTable:
    """Per structure the summaries of each run, by "dice" and "hd95"; `judge` is "" for the runs' own structures."""

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
    metrics = {f"{prefix}{metric}": metric for metric in ("dice", "hd95")}
    for summary in summaries:
        if summary.split == split and summary.structure not in ("", ALL_STRUCTURES) and summary.metric in metrics:
            rows = by_run.setdefault(summary.model, {})
            rows.setdefault(summary.structure, {})[metrics[summary.metric]] = summary
    kept = {run: rows for run, rows in by_run.items() if any(pair["dice"].n_cases for pair in rows.values())}
    structures = list(dict.fromkeys(name for rows in kept.values() for name in rows))
    rows = [(name, [by_structure.get(name, {}) for by_structure in kept.values()]) for name in structures]
    return StructureTable(split, judge, list(kept), rows)
