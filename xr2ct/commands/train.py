"""Command line of `xr2ct train`."""

import argparse
import json
from pathlib import Path

import xr2ct
from xr2ct.commands.options import add_command, add_files, add_machine, add_window
from xr2ct.errors import UserError
from xr2ct.memory import keep_freed_memory


def add(commands: argparse._SubParsersAction) -> None:
    parser = add_command(
        commands,
        "train",
        "Train one model on shards; writes model.pt, model.pt.sha256 and train.csv.",
        """\
examples:
  xr2ct train --model mean --simulator parallel --shards results/shards/*/train-*.h5 --out results/train/mean
  xr2ct train --model spider --simulator cone --shards ... --settings '{"preset": "large"}' --out results/train/a
  xr2ct train ... --start results/train/a/model.pt --limit 1 --settings '{"freeze": ["decoder"]}' --out results/train/b
  torchrun --nproc-per-node 2 -m xr2ct train ...     the same result from two processes, each with half of every batch

models: mean (training mean), nearest (the training case with the most similar X-rays), backprojection (FBP or FDK,
nothing to learn), spider

settings of spider, default first; {"preset": NAME} or a list of names takes them from recipes, later ones win, and
settings given beside it win over all: {recipes}
  training   steps 800, or epochs (passes over the cases; they win over steps beside them); batch 2 cases; optimizer
             adamw, adam or sgd (momentum 0.9);
             learning_rate 5e-3, table_rate 1 (of the hash table, as a multiple); schedule cosine, halving (halve_epochs
             100) or exponential (down to final_rate 0.001 of the first); weight_decay 0; clip 0 (largest gradient norm,
             0 = none); ema 0 (decay of the averaged weights and batch statistics that are watched and saved); freeze none of
             encoder, decoder, position (a list); patience 0 (watch rounds without a better PSNR that end the training at its
             best state)
  network    widths [16, 32, 64, 128, 256] of the UNet, convolutions 2 per block, norm group or batch, head 0 (channels of
             a last 1x1 convolution, 0 = none); decoder shared, two_branch or two_stage, hidden 128, layers 3, repeat_input;
             structures all (or a list; ["none"] = intensity only); precision float32 or bfloat16
  hash grid  levels 11 of level_features 8, coarsest 16 and finest 0 (= the voxel grid) points per side,
             log2_entries 17 (table rows per level), backend auto (the fastest present)
  sampling   comb (points 24 per axis and step, in runs of run 4 neighbours), uniform (scattered_points 0 = points^3),
             blocks (of block 8 voxels a side, surface_share 0.5 of them on structures) or mixed; grid_shift 2 (the grid of a
             case begins up to so many voxels elsewhere in every step; 0 = never)
  loss       intensity_weight 4 (L1), intensity_balance 0.5 (an error counts 1 / (how often such HU occur, of 25 parts of the
             window) to this power; 0 = all alike), dice_weight 0.3, dice class or micro (eq. 25), dice_background,
             entropy_weight 0.1
  watching   log_steps 50, watch_steps 200, watch_cases 4 per shard, save_minutes 2 between resume points

During training out/watch/step-000200.png shows the first watched case, true above predicted. A stopped training
(Ctrl-C, SIGTERM) continues where it stood when the same command is given again; --fresh starts afresh instead.""".replace(
            "{recipes}", recipes()
        ),
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
    parser.add_argument(
        "--start",
        type=Path,
        metavar="FILE",
        help="begin from this model.pt; give the same task and the settings of its network again",
    )
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="train on the first N cases only, 0 = all")
    parser.add_argument("--fresh", action="store_true", help="discard what an earlier training left in --out")
    parser.add_argument("--tensorboard", action="store_true", help="log to out/tensorboard too")
    add_machine(parser)
    parser.set_defaults(run=run)


def recipes() -> str:
    """Names of the recipes of spider, and the folder where each says why."""
    folder = Path(xr2ct.__file__).parent / "recipes"
    return f"{', '.join(path.stem for path in sorted(folder.glob('*.yaml')))}\n(sources of every value in {folder}/NAME.yaml)"


def run(options: argparse.Namespace) -> None:
    from xr2ct.train import train

    keep_freed_memory()
    train(
        model=options.model,
        simulator=options.simulator,
        shards=options.shards,
        watch=options.watch,
        out=options.out,
        settings=json_object(options.settings),
        window=tuple(options.window),
        seed=options.seed,
        start=options.start,
        limit=options.limit,
        fresh=options.fresh,
        tensorboard=options.tensorboard,
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
