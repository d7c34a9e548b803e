"""Command line: `xr2ct` or `python -m xr2ct`."""

import argparse
import errno
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from xr2ct.errors import UserError

EXIT_USAGE, EXIT_TRY_AGAIN = 2, 75
DEFAULT_WINDOW_HU = (-1000.0, 1500.0)

ABOUT = "Reconstruct a CT from two X-rays: train models on shards, reconstruct, evaluate and report."
EXAMPLE = """\
from shards to a report:
  xr2ct verify      results/shards/*/*.h5
  xr2ct train       --model spider --simulator parallel --shards results/shards/*/train-*.h5 --out results/train/a
  xr2ct reconstruct --checkpoint results/train/a/model.pt --shards results/shards/*/test-*.h5 \\
                    --out results/reconstruct/a
  xr2ct evaluate    --reconstructions results/reconstruct/a/index.json --shards results/shards/*/test-*.h5 \\
                    --out results/evaluate/a.csv
  xr2ct report      --shards results/shards/*/test-*.h5 --evaluations results/evaluate/a.csv \\
                    --reconstructions results/reconstruct/a/index.json --out results/report/index.html

exit codes: 0 done; 1 verify found problems; 2 wrong use, said in one line; 75 disk or memory full, try again.
Shards are documented in resources/shard.md. `xr2ct COMMAND --help` explains one command."""


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keep the line breaks of examples, and show defaults where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default not in (None, [], DEFAULT_WINDOW_HU) else action.help


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    # Threads that spin while they wait are many times slower as soon as anything else wants a core (libgomp reads this
    # when torch is imported).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except UserError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return EXIT_USAGE
    except MemoryError:
        print("ERROR: memory is full. Free some, or give fewer cases at a time, and try again.", file=sys.stderr)
        return EXIT_TRY_AGAIN
    except (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        print(f"ERROR: {error.filename}: {error.strerror}. Give another path.", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print("ERROR: no space left on the disk; nothing was published. Free some and try again.", file=sys.stderr)
        return EXIT_TRY_AGAIN


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xr2ct", description=ABOUT, epilog=EXAMPLE, formatter_class=_Help)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_train, _add_reconstruct, _add_evaluate, _add_report, _add_verify, _add_export):
        add(commands)
    return parser


def _command(commands: argparse._SubParsersAction, name: str, about: str, epilog: str) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=about, description=about, epilog=epilog, formatter_class=_Help)


def _add_files(parser: argparse.ArgumentParser, option: str, about: str, required: bool = True) -> None:
    parser.add_argument(option, type=Path, nargs="+", required=required, default=[], metavar="FILE", help=about)


def _add_window(parser: argparse.ArgumentParser, about: str) -> None:
    parser.add_argument("--window", type=float, nargs=2, default=DEFAULT_WINDOW_HU, metavar=("LOW", "HIGH"), help=about)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU if there is one"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")


def _add_train(commands: argparse._SubParsersAction) -> None:
    parser = _command(
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
    _add_files(parser, "--shards", "shards of split train")
    _add_files(parser, "--watch", "shards to look at during training, never trained on", required=False)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of this run; its name names the run"
    )
    parser.add_argument("--settings", default="{}", metavar="JSON", help="settings of the model as a JSON object")
    _add_window(parser, "HU range that the model learns, mapped to 0..1")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random")
    _add_machine(parser)
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    from xr2ct.train import train

    train(
        model=options.model,
        simulator=options.simulator,
        shards=options.shards,
        watch=options.watch,
        out=options.out,
        settings=_json_object(options.settings),
        window=tuple(options.window),
        seed=options.seed,
        device=options.device,
        threads=options.threads,
    )


def _json_object(text: str) -> dict:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"--settings {text!r} is not JSON ({error}), expected e.g. '{{\"steps\": 100}}'.") from error
    if not isinstance(value, dict):
        raise UserError(f"--settings {text!r} is not a JSON object, expected e.g. '{{\"steps\": 100}}'.")
    return value


def _add_reconstruct(commands: argparse._SubParsersAction) -> None:
    parser = _command(
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
    _add_files(parser, "--shards", "cases to reconstruct")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of this run; its name names the run"
    )
    parser.add_argument(
        "--simulator", metavar="NAME", help="whose X-rays to use (default: those the model was trained on)"
    )
    _add_machine(parser)
    parser.set_defaults(run=_reconstruct)


def _reconstruct(options: argparse.Namespace) -> None:
    from xr2ct.reconstruct import reconstruct

    reconstruct(
        checkpoint=options.checkpoint,
        shards=options.shards,
        out=options.out,
        simulator=options.simulator,
        device=options.device,
        threads=options.threads,
    )


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "evaluate",
        "Compare the reconstructions of one run with the true CTs; writes one row per case, metric and structure.",
        """\
example:
  xr2ct evaluate --reconstructions results/reconstruct/a/index.json --shards results/shards/*/test-*.h5 \\
                 --window -1000 1500 --out results/evaluate/a.csv

PSNR (dB), SSIM (3-D Gaussian, 11 voxels, sigma 1.5) and cosine similarity of the window mapped to 0..1, MAE (HU) and
MSE (HU^2) in the window; Dice, HD95 and Chamfer distance in mm for each structure that the reference shows. A case
without a usable reconstruction is a row with the value nan and a reason, never left out.

--legacy adds what other papers call PSNR and SSIM, named after paper and range (psnr_x2ct4095, ssim_skimage2, ...;
defined in xr2ct/metrics/legacy.py): to stand beside printed numbers. The report keeps them in a table of their own.""",
    )
    parser.add_argument("--reconstructions", type=Path, required=True, metavar="FILE", help="index.json of the run")
    _add_files(parser, "--shards", "the shards that were reconstructed")
    _add_window(parser, "HU range in which volumes are compared; also part of the metric names")
    parser.add_argument("--legacy", action="store_true", help="also compute the metrics of other papers")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="CSV to write")
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    from xr2ct.evaluate import evaluate

    evaluate(
        reconstructions=options.reconstructions,
        shards=options.shards,
        window=tuple(options.window),
        legacy=options.legacy,
        out=options.out,
    )


def _add_report(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "report",
        "Write one self-contained HTML page, summary.csv and differences.csv, and print the summary as a table.",
        """\
example:
  xr2ct report --shards results/shards/*/test-*.h5 --evaluations results/evaluate/*.csv \\
               --reconstructions results/reconstruct/*/index.json --training results/train/*/train.csv \\
               --cohort results/cohort --out results/report/index.html

The page needs no network and runs no script. Intervals are 95 % percentile intervals of 2000 seeded resamples of
patients, not cases; there is none below 4 patients. Rows "a - b" are paired differences on the cases (and structures)
that both runs have; the table shows those to the first run given, differences.csv all pairs. Metrics of
`xr2ct evaluate --legacy` get a table of their own, and legacy.csv.""",
    )
    _add_files(parser, "--shards", "the shards that were evaluated")
    _add_files(parser, "--evaluations", "CSVs of `xr2ct evaluate`, one per run")
    _add_files(parser, "--reconstructions", "index.json of the runs to show in pictures")
    _add_files(parser, "--training", "train.csv of the runs; the folder's name is the run", required=False)
    parser.add_argument("--cohort", type=Path, metavar="DIR", help="folder with cases.tsv and quarantine.tsv")
    parser.add_argument(
        "--cases", type=int, default=3, metavar="N", help="cases per split to show open; the others are folded"
    )
    parser.add_argument("--picture", type=Path, metavar="PNG", help="also write one picture of one case")
    parser.add_argument(
        "--figure",
        type=Path,
        nargs="*",
        action="extend",
        default=[],
        metavar="PNG",
        help="simulated X-rays to show, as `python -m pipeline radiographs` draws them; the file's name is the caption",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="HTML", help="page to write")
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> None:
    from xr2ct.report import report
    from xr2ct.summary import legacy_table

    text = report(
        shards=options.shards,
        evaluations=options.evaluations,
        reconstructions=options.reconstructions,
        training=options.training,
        cohort=options.cohort,
        cases_open=options.cases,
        picture=options.picture,
        figures=options.figure,
        out=options.out,
    )
    legacy = legacy_table(options.evaluations, options.out.with_name("legacy.csv"))
    print("\n\n".join([text, *([legacy] if legacy else []), f"report: {options.out}"]))


def _add_verify(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "verify",
        "Check everything of the shard format that a reader relies on; prints one line per problem.",
        """\
example:
  xr2ct verify results/shards/*/*.h5

Give all shards of an experiment at once: patients in two of train, validation and test show only then.
Exit code 0 if there is no problem, 1 otherwise.""",
    )
    parser.add_argument("shards", type=Path, nargs="+", metavar="FILE", help="shards to check")
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    from xr2ct.verify import verify

    exit_code = 0
    for problem in verify(options.shards):
        print(problem)
        exit_code = 1
    if not exit_code:
        print(f"{len(options.shards)} shards, no problem", file=sys.stderr)
    return exit_code


def _add_export(commands: argparse._SubParsersAction) -> None:
    parser = _command(
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
    _add_files(parser, "--shards", "shards to export")
    parser.add_argument("--simulator", required=True, metavar="NAME", help="whose X-rays, with views PA and LAT")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for one folder per case")
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    from xr2ct.export import export_x2ct

    export_x2ct(shards=options.shards, simulator=options.simulator, out=options.out)


if __name__ == "__main__":
    sys.exit(main())
