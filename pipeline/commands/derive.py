"""Command line of `python -m pipeline derive`."""

from __future__ import annotations

import argparse
from dataclasses import fields

from pipeline.commands.options import add_record_and_out, add_stage


def add(stages: argparse._SubParsersAction) -> None:
    stage = add_stage(stages, "derive", "Deform one labelled CT into a new case of the same patient.")
    add_record_and_out(stage)
    stage.add_argument("--case", required=True, help="id of the new case")
    stage.add_argument("--split", choices=("train", "family_validation", "family", "family_transfer"), required=True)
    stage.add_argument("--number", type=int, required=True, help="which of the parent's deformations")
    stage.add_argument("--seed", type=int, default=1, help="seed of the experiment")
    for option, default, unit in (
        ("control-spacing-mm", 60.0, "distance of the random field's control points, mm"),
        ("max-displacement-mm", 12.0, "largest elastic displacement, mm"),
        ("max-shift-mm", 8.0, "largest shift along each axis, mm"),
        ("max-rotation-deg", 4.0, "largest rotation about each axis, degrees"),
        ("max-scale", 0.05, "largest relative change of size"),
        ("structure-hu", 15.0, "standard deviation of each structure's HU change"),
        ("noise-hu", 10.0, "standard deviation of the added noise, HU"),
    ):
        stage.add_argument(f"--{option}", type=float, default=default, help=unit)
    stage.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from pipeline.deform import Strength
    from pipeline.derive import derive

    strength = Strength(**{item.name: getattr(options, item.name) for item in fields(Strength)})
    derive(
        options.record,
        options.out,
        case=options.case,
        split=options.split,
        number=options.number,
        seed=options.seed,
        strength=strength,
    )
