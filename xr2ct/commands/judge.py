"""Command line of `xr2ct judge`."""

import argparse
from pathlib import Path

from xr2ct.commands.options import add_command, add_files, add_machine


def add(commands: argparse._SubParsersAction) -> None:
    parser = add_command(
        commands,
        "judge",
        "Segment reconstructions with a network that never saw one; writes the rows of `xr2ct evaluate`.",
        """\
examples:
  xr2ct judge --judge results/judge/nnunet --shards results/shards/*/test-*.h5 --out results/judge/nnunet/true-ct.csv
  xr2ct judge --judge results/judge/nnunet --shards results/shards/*/test-*.h5 \\
              --reconstructions results/reconstruct/a/index.json --out results/judge/nnunet/a.csv
  xr2ct judge --judge totalsegmentator-fast --shards ... --out results/judge/totalsegmentator-fast/true-ct.csv

Without --reconstructions the true CTs are judged (model "true CT"): the ceiling, what the judge finds where nothing
had to be reconstructed. The metrics are Dice, HD95 and Chamfer distance in mm, named after the judge (nnunet-dice, ...).
A case without a usable reconstruction is a row with the value nan and a reason, never left out; a case that the judge
was trained on says so. Give the files to `xr2ct report --evaluations` beside those of `xr2ct evaluate`.

totalsegmentator (1.5 mm, wants a GPU) and totalsegmentator-fast (3 mm) need that package and its weights, and no
training; its classes are merged into the structures of the shards by name.""",
    )
    parser.add_argument(
        "--judge",
        required=True,
        metavar="JUDGE",
        help="folder of `xr2ct judge-train`, or totalsegmentator, or totalsegmentator-fast",
    )
    add_files(parser, "--shards", "cases to judge, with their true labels")
    parser.add_argument(
        "--reconstructions", type=Path, metavar="FILE", help="index.json of the run to judge (default: the true CTs)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="CSV to write")
    add_machine(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from xr2ct.judge.judging import judge

    judge(
        judge=options.judge,
        shards=options.shards,
        reconstructions=options.reconstructions,
        out=options.out,
        device=options.device,
        threads=options.threads,
    )
