"""Command line of `xr2ct reconstruct`."""

import argparse
from pathlib import Path

from xr2ct.commands.options import add_command, add_files, add_machine


def add(commands: argparse._SubParsersAction) -> None:
    parser = add_command(
        commands,
        "reconstruct",
        "Reconstruct every case of the shards from its X-rays; writes <case>/ct.nii.gz, label.nii.gz and index.json.",
        """\
example:
  xr2ct reconstruct --checkpoint results/train/a/model.pt --shards results/shards/*/test-*.h5 \\
                    --out results/reconstruct/a

The volumes are int16 HU and uint8 labels in the world of the source CT: load both into one viewer and they overlap.""",
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="model.pt of a training")
    add_files(parser, "--shards", "cases to reconstruct")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of this run; its name names the run"
    )
    parser.add_argument(
        "--simulator", metavar="NAME", help="whose X-rays to use (default: those the model was trained on)"
    )
    add_machine(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from xr2ct.reconstruct import reconstruct

    reconstruct(
        checkpoint=options.checkpoint,
        shards=options.shards,
        out=options.out,
        simulator=options.simulator,
        device=options.device,
        threads=options.threads,
    )
