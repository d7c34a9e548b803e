"""Command line of `python -m pipeline segment`."""

from __future__ import annotations

import argparse

from pipeline.commands.options import add_record_and_out, add_stage


def add(stages: argparse._SubParsersAction) -> None:
    stage = add_stage(stages, "segment", "Label one CT that brings no labels, by TotalSegmentator.")
    add_record_and_out(stage)
    stage.add_argument("--structures", nargs="+", required=True, help="structure groups to look for")
    stage.add_argument("--fast", action="store_true", help="the 3 mm network alone in place of five of 1.5 mm")
    stage.add_argument("--all-classes", action="store_true", help="look for all 117 classes, not for --structures only")
    stage.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="where TotalSegmentator runs")
    stage.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from pipeline.segment import segment_case

    segment_case(
        options.record,
        options.out,
        structures=options.structures,
        fast=options.fast,
        all_classes=options.all_classes,
        device=options.device,
    )
