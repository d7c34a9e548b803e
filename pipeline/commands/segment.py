"""Command line of `python -m pipeline segment`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands.options import add_stage
from pipeline.errors import UserError


def add(stages: argparse._SubParsersAction) -> None:
    stage = add_stage(stages, "segment", "Label one CT that brings no labels, by TotalSegmentator.")
    stage.add_argument("records", type=Path, nargs="+", metavar="record", help="case.json of the stage before")
    stage.add_argument("--out", type=Path, required=True, help="folder of this case in this stage")
    stage.add_argument(
        "--ahead",
        type=Path,
        metavar="TABLE",
        help="of many records make only the label maps, in <out>/<case>, with the networks loaded once, and list them in "
        "TABLE; called for one of the records afterwards, the stage finds its label map made",
    )
    stage.add_argument("--structures", nargs="+", required=True, help="structure groups to look for")
    stage.add_argument("--fast", action="store_true", help="the 3 mm network alone in place of five of 1.5 mm")
    stage.add_argument("--all-classes", action="store_true", help="look for all 117 classes, not for --structures only")
    stage.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="where TotalSegmentator runs")
    stage.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from pipeline.segment import segment_ahead, segment_case

    asked = {name: getattr(options, name) for name in ("structures", "fast", "all_classes", "device")}
    if options.ahead:
        segment_ahead(options.records, options.out, options.ahead, **asked)
    elif len(options.records) > 1:
        raise UserError(f"segment was given {len(options.records)} records; expected one, or --ahead TABLE.")
    else:
        segment_case(options.records[0], options.out, **asked)
