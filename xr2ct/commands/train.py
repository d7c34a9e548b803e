"""Command line of `xr2ct train`."""

import argparse
import json
from pathlib import Path

from xr2ct.commands.options import add_command, add_files, add_machine, add_window
from xr2ct.errors import UserError


def add(commands: argparse._SubParsersAction) -> None:
    parser = add_command(
        commands,
        "train",
        "Train one model on shards; writes model.pt, model.pt.sha256 and train.csv.",
        """\
examples:
  xr2ct train --model mean --simulator parallel --shards results/shards/*/train-*.h5 --out results/train/mean
  xr2ct train --model spider --simulator cone --shards ... --settings '{"preset": "large"}' --out results/train/a

models: mean (training mean), nearest (the training case with the most similar X-rays), backprojection (FBP or FDK,
nothing to learn), spider

settings of spider, default first; {"preset": "paper"} is the printed recipe, {"preset": "large"} a wider network:
  training   steps 800, or epochs (passes over the cases); batch 2 cases; optimizer adamw or sgd (momentum 0.9);
             learning_rate 5e-3, table_rate 1 (of the hash table, as a multiple); schedule cosine or halving
             (halve_epochs 100); weight_decay 0; clip 0 (largest gradient norm, 0 = none)
  network    widths [16, 32, 64, 128, 256] of the UNet, convolutions 2 per block; hidden 64 and layers 3 of the decoder
  hash grid  levels 11 of level_features 8, coarsest 16 and finest 0 (= the voxel grid) points per side,
             log2_entries 17 (table rows per level)
  sampling   points 32 per axis and step, in runs of run 4 neighbours
  loss       intensity_weight 1 (L1), dice_weight 0.3, dice class or micro (eq. 25), entropy_weight 0.3
  watching   log_steps 50, watch_steps 200, watch_cases 4 per shard, save_minutes 2 between resume points

A stopped training (Ctrl-C, SIGTERM) continues where it stood when the same command is given again.""",
    )
    parser.add_argument("--model", required=True, metavar="NAME", help="mean, nearest, backprojection or spider")
    parser.add_argument("--simulator", required=True, metavar="NAME", help="whose X-rays to train on, e.g. parallel")
    add_files(parser, "--shards", "shards of split train")
    add_files(parser, "--watch", "shards to look at during training, never trained on", required=False)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of this run; its name names the run"
    )
    parser.add_argument("--settings", default="{}", metavar="JSON", help="settings of the model as a JSON object")
    add_window(parser, "HU range that the model learns, mapped to 0..1")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random")
    add_machine(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from xr2ct.train import train

    train(
        model=options.model,
        simulator=options.simulator,
        shards=options.shards,
        watch=options.watch,
        out=options.out,
        settings=json_object(options.settings),
        window=tuple(options.window),
        seed=options.seed,
        device=options.device,
        threads=options.threads,
    )


def json_object(text: str) -> dict:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"--settings {text!r} is not JSON ({error}), expected e.g. '{{\"steps\": 100}}'.") from error
    if not isinstance(value, dict):
        raise UserError(f"--settings {text!r} is not a JSON object, expected e.g. '{{\"steps\": 100}}'.")
    return value
