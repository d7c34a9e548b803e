"""Command line of `python -m pipeline label`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands.options import add_stage
from pipeline.errors import UserError


def add(stages: argparse._SubParsersAction) -> None:
    stage = add_stage(stages, "label", "Put the labels of one CT onto its cube, by structure name.")
    stage.add_argument("records", type=Path, nargs="+", metavar="record", help="case.json of the stage before")
    stage.add_argument("--out", type=Path, required=True, help="folder of this case in this stage")
    stage.add_argument(
        "--vertebrae", action="store_true", help="the records are vertebrae of one CT; each goes to <out>-L1, ..."
    )
    stage.add_argument(
        "--structures", nargs="+", required=True, help="structure groups, in the order of their ids 1..K"
    )
    stage.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from pipeline.label import label, label_vertebrae

    if options.vertebrae:
        label_vertebrae(options.records, options.out, structures=options.structures)
    elif len(options.records) > 1:
        raise UserError(
            f"label was given {len(options.records)} records; expected one, or --vertebrae. Label each case alone."
        )
    else:
        label(options.records[0], options.out, structures=options.structures)
