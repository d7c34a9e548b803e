"""Command line of `xr2ct judge-train`."""

import argparse
from pathlib import Path

from xr2ct.commands.options import add_command, add_files, add_machine
from xr2ct.judge.sizes import SIZES


def add(commands: argparse._SubParsersAction) -> None:
    parser = add_command(
        commands,
        "judge-train",
        "Train the segmenter that judges reconstructions, on true CTs alone; writes judge.json last.",
        """\
example:
  xr2ct judge-train --kind nnunet --size small --shards results/shards/*/train-*.h5 --out results/judge/nnunet

nnunet is the package nnunetv2 (pip install 'xr2ct[nnunet]' -c constraints.txt): its fingerprint, planner, preprocessing,
trainer without mirroring (a mirrored left lung is a right one) and predictor, from int16 HU as the shards hold them.
  small  patches of at most 48 voxels, 12 to 96 features, 1000 iterations of AdamW: minutes on two cores; a seed decides it
  medium the same with patches of at most 64: for volumes of 128^3
  stock  the package's own plan and 1000 epochs of 250 iterations: a day on a GPU
Cases that are not annotated for every structure are left out, by name; voxels that nobody may judge teach nothing.

A stopped training (Ctrl-C, SIGTERM) continues where it stood when the same command is given again. Nothing is written
outside --out; the data set and what nnU-Net makes of it (--out/nnunet) are removed at the end.""",
    )
    parser.add_argument("--kind", default="nnunet", metavar="NAME", help="nnunet; the others come trained")
    parser.add_argument("--size", default="small", metavar="NAME", help=", ".join(SIZES))
    add_files(parser, "--shards", "shards of split train, with labels")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of this judge")
    parser.add_argument(
        "--iterations", type=int, metavar="N", help="rounded up to whole epochs (default: as the size says)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random")
    add_machine(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from xr2ct.judge.train import train_judge

    train_judge(
        kind=options.kind,
        size=options.size,
        shards=options.shards,
        out=options.out,
        device=options.device,
        threads=options.threads,
        seed=options.seed,
        iterations=options.iterations,
    )
