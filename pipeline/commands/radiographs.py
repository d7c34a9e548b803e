"""Command line of `python -m pipeline radiographs`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands.options import add_ct, add_stage, parse_views, require_one_ct, require_sane, say
from pipeline.errors import UserError

_EPILOG = """\
example:
  python -m pipeline radiographs --volume ct.nii.gz --kvp 60 90 120 --out sheet.png

rows: every view, monoenergetic (at the spectrum's mean energy), realistic, with scatter, with scatter behind a grid; columns:
tube voltage.
The pictures of a row share one display window, given beside it as line integrals: scatter and hard rays narrow it."""


def add(stages: argparse._SubParsersAction) -> None:
    stage = add_stage(stages, "radiographs", "Draw a contact sheet of one CT's simulated X-rays.", _EPILOG)
    add_ct(stage)
    stage.add_argument("--kvp", type=float, nargs="+", default=[60.0, 90.0, 120.0], help="tube voltages (60 90 120)")
    stage.add_argument("--views", nargs="+", default=["PA,LAT"], metavar="VIEW", help="as of `project` (PA,LAT)")
    stage.add_argument("--size-px", type=int, default=256, metavar="N", help="pixels per side of one picture (256)")
    stage.add_argument("--seed", type=int, default=1, metavar="N", help="of noise and random angles (1)")
    stage.add_argument("--out", type=Path, required=True, help="PNG to write")
    stage.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """One contact sheet of one CT."""
    from pipeline.radiographs import radiographs

    require_one_ct(options, "radiographs")
    require_sane(options)
    if len(set(options.kvp)) < len(options.kvp):
        raise UserError(f"--kvp {' '.join(f'{kvp:g}' for kvp in options.kvp)} names a voltage twice. Remove one.")
    views = tuple(view for text in options.views for view in parse_views(text))
    radiographs(
        record=options.record,
        volume=options.volume,
        out=options.out,
        kvps=options.kvp,
        views=views,
        size_px=options.size_px,
        seed=options.seed,
        say=say,
    )
    if options.volume is not None:
        print(f"radiographs: {options.out}")
