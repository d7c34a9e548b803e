"""Command line of `xr2ct verify`."""

import argparse
import sys
from pathlib import Path

from xr2ct.commands.options import add_command


def add(commands: argparse._SubParsersAction) -> None:
    parser = add_command(
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
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from xr2ct.verify import verify

    exit_code = 0
    for problem in verify(options.shards):
        print(problem)
        exit_code = 1
    if not exit_code:
        print(f"{len(options.shards)} shards, no problem", file=sys.stderr)
    return exit_code
