"""Command line of `xr2ct export`."""

import argparse
from pathlib import Path

from xr2ct.commands.options import add_command, add_files


def add(commands: argparse._SubParsersAction) -> None:
    parser = add_command(
        commands,
        "export",
        "Write shards in the layout that other code reads.",
        """\
example:
  xr2ct export --layout x2ct --shards results/shards/*/train-*.h5 --simulator cone --out results/x2ct/train

layout x2ct: DIR/<case>/ct_xray_data.h5 with ct (HU + 1024 clipped to 0..2500), xray1 (PA) and xray2 (LAT), as X2CT's
own loader reads them (axes: resources/shard.md). Lost are HU above 1476, labels, spacing and world position, the X-ray
geometry, and the scale of each X-ray: it is stretched from its own minimum and maximum to 0..255, 8 bits.""",
    )
    parser.add_argument("--layout", required=True, choices=("x2ct",), help="layout to write")
    add_files(parser, "--shards", "shards to export")
    parser.add_argument("--simulator", required=True, metavar="NAME", help="whose X-rays, with views PA and LAT")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for one folder per case")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from xr2ct.export import export_x2ct

    export_x2ct(shards=options.shards, simulator=options.simulator, out=options.out)
