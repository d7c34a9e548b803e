"""Command line of `python -m pipeline ingest`."""

from __future__ import annotations

import argparse

from pipeline.commands.options import add_record_and_out, add_stage
from pipeline.errors import UserError


def add(stages: argparse._SubParsersAction) -> None:
    stage = add_stage(stages, "ingest", "Read, check and resample one CT onto the cube, int16 HU in RAS mm.")
    add_record_and_out(stage)
    stage.add_argument("--cube", type=int, default=128, help="voxels per side of the cube")
    stage.add_argument("--spacing-mm", type=float, default=3.0, help="voxel size of the cube in mm")
    stage.add_argument(
        "--region", choices=("cube", "structures", "spine", "vertebra"), default="cube", help="which part of the CT"
    )
    stage.add_argument(
        "--along",
        nargs="+",
        default=[],
        metavar="NAME",
        help="structures: groups that the CT must hold; vertebra: L1 L2 ..., each a case of its own in <out>-L1, ...",
    )
    stage.add_argument("--strict", action="store_true", help="set aside files that contradict themselves, too")
    stage.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from pipeline.ingest import ingest, ingest_vertebrae

    grid = {"cube": options.cube, "spacing_mm": options.spacing_mm, "strict": options.strict}
    if bool(options.along) != (options.region in ("structures", "vertebra")):
        raise UserError(
            f"--region {options.region} with --along {' '.join(options.along) or '(nothing)'}; expected names for "
            "structures and vertebra, none for cube and spine."
        )
    if options.region == "vertebra":
        ingest_vertebrae(options.record, options.out, options.along, **grid)
    else:
        ingest(options.record, options.out, region=options.region, along=tuple(options.along), **grid)
