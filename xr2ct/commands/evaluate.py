"""Command line of `xr2ct evaluate`."""

import argparse
from pathlib import Path

from xr2ct.commands.options import add_command, add_files, add_window


def add(commands: argparse._SubParsersAction) -> None:
    parser = add_command(
        commands,
        "evaluate",
        "Compare the reconstructions of one run with the true CTs; writes one row per case, metric and structure.",
        """\
example:
  xr2ct evaluate --reconstructions results/reconstruct/a/index.json --shards results/shards/*/test-*.h5 \\
                 --window -1000 1500 --out results/evaluate/a.csv

PSNR (dB), SSIM (3-D Gaussian, 11 voxels, sigma 1.5) and cosine similarity of the window mapped to 0..1, MAE (HU) and
MSE (HU^2) in the window, PSNR and MAE also inside and outside the labelled structures; Dice, HD95 and Chamfer distance
in mm for each structure that the reference shows. A case without a usable reconstruction is a row with the value nan and
a reason, never left out.

Runs whose folders end in -seed1, -seed2, ... and that were trained with that --seed keep it in a column of its own, so that
the report can group them.

--legacy adds what other papers call PSNR, SSIM, Dice, HD95 and Chamfer distance, named after their conventions
(psnr_x2ct4095, ssim_skimage2, ...; defined in xr2ct/metrics/legacy.py and legacy_structures.py): to stand beside printed
numbers. The report keeps them in a table, and its page in a section, of their own.""",
    )
    parser.add_argument("--reconstructions", type=Path, required=True, metavar="FILE", help="index.json of the run")
    add_files(parser, "--shards", "the shards that were reconstructed")
    add_window(parser, "HU range in which volumes are compared; also part of the metric names")
    parser.add_argument("--legacy", action="store_true", help="also compute the metrics of other papers")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="CSV to write")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from xr2ct.evaluate import evaluate

    evaluate(
        reconstructions=options.reconstructions,
        shards=options.shards,
        window=tuple(options.window),
        legacy=options.legacy,
        out=options.out,
    )
