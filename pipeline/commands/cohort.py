"""Command line of `python -m pipeline cohort`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands.options import add_stage
from pipeline.errors import UserError


def add(stages: argparse._SubParsersAction) -> None:
    stage = add_stage(stages, "cohort", "Decide who goes on; refuse a patient in two splits.")
    stage.add_argument("records", type=Path, nargs="*", help="case.json of every case after the label stage")
    stage.add_argument("--listed-in", type=Path, metavar="FILE", help="text file with more of them, one a line")
    stage.add_argument("--out", type=Path, required=True, help="folder for cases.tsv and quarantine.tsv")
    stage.add_argument("--max-quarantine-fraction", type=float, default=0.05, help="stop above it, from 20 cases on")
    stage.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from pipeline.cohort import gather

    records = list(options.records)
    if options.listed_in:
        try:
            records += map(Path, options.listed_in.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError):
            raise UserError(f"--listed-in {options.listed_in} cannot be read; expected a text file.") from None
    if not records:
        raise UserError("cohort was given no record; expected the case.json of every case, or --listed-in FILE.")
    gather(records, options.out, max_quarantine_fraction=options.max_quarantine_fraction)
