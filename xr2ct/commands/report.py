"""Command line of `xr2ct report`."""

import argparse
from pathlib import Path

from xr2ct.commands.options import add_command, add_files


def add(commands: argparse._SubParsersAction) -> None:
    parser = add_command(
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
`xr2ct evaluate --legacy` get a table of their own, a section of the page, and legacy.csv.

Runs whose folders differ only in -seed1, -seed2, ... (and were trained with that --seed) are one run: a case is averaged
over the seeds first, and "+-" is
the standard deviation of the mean from seed to seed, which intervals do not contain. In the splits family,
family_transfer and family_validation, deformations of one patient, cases are drawn instead of patients. CSVs of
`xr2ct judge` add Dice, HD95 and Chamfer distance (mm) of what its segmenter finds, a line `true CT` with what it gets on
the CTs themselves, each run's share of that Dice, and a table per structure.

  --table "Table III: three decoders=default,two-branch,two-stage"

adds a section with these runs: their means, differences from the first of them, and one chart per metric. The baselines,
runs of the models mean and nearest among --reconstructions, stand in every table, below the runs that it names.""",
    )
    add_files(parser, "--shards", "the shards that were evaluated")
    add_files(parser, "--evaluations", "CSVs of `xr2ct evaluate`, one per run, and of `xr2ct judge`")
    add_files(parser, "--reconstructions", "index.json of the runs to show in pictures")
    add_files(parser, "--training", "train.csv of the runs; the folder's name is the run", required=False)
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
    parser.add_argument(
        "--table",
        action="append",
        default=[],
        metavar="TITLE=RUN,RUN",
        help="runs to compare in a section of their own",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="HTML", help="page to write")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from xr2ct.comparison import read_title
    from xr2ct.report import report

    text = report(
        shards=options.shards,
        evaluations=options.evaluations,
        reconstructions=options.reconstructions,
        training=options.training,
        cohort=options.cohort,
        cases_open=options.cases,
        picture=options.picture,
        figures=options.figure,
        tables=[read_title(text) for text in options.table],
        out=options.out,
    )
    print(f"{text}\n\nreport: {options.out}")
