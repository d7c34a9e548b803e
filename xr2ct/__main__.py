"""Command line: `xr2ct` or `python -m xr2ct`."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from xr2ct.commands import evaluate, export, judge, judge_train, reconstruct, report, train, verify
from xr2ct.commands.options import Help, ShowVersion
from xr2ct.errors import UserError

COMMANDS = (train, reconstruct, evaluate, judge_train, judge, report, verify, export)
EXIT_USAGE, EXIT_TRY_AGAIN, EXIT_NO_READER = 2, 75, 141

ABOUT = "Reconstruct a CT from two X-rays: train models on shards, reconstruct, evaluate and report."
EXAMPLE = """\
from shards to a report:
  xr2ct verify      results/shards/*/*.h5
  xr2ct train       --model spider --simulator parallel --shards results/shards/*/train-*.h5 --out results/train/a
  xr2ct reconstruct --checkpoint results/train/a/model.pt --shards results/shards/*/test-*.h5 \\
                    --out results/reconstruct/a
  xr2ct evaluate    --reconstructions results/reconstruct/a/index.json --shards results/shards/*/test-*.h5 \\
                    --out results/evaluate/a.csv
  xr2ct judge-train --kind nnunet --shards results/shards/*/train-*.h5 --out results/judge/nnunet
  xr2ct judge       --judge results/judge/nnunet --shards results/shards/*/test-*.h5 \\
                    --reconstructions results/reconstruct/a/index.json --out results/judge/nnunet/a.csv
  xr2ct report      --shards results/shards/*/test-*.h5 --evaluations results/evaluate/a.csv \\
                    --reconstructions results/reconstruct/a/index.json --out results/report/index.html
from two image files to a CT:
  xr2ct reconstruct --checkpoint results/train/a/model.pt --pa pa.png --lat lat.dcm --out ct.nii.gz

exit codes: 0 done; 1 verify found problems; 2 wrong use, said in one line; 75 disk or memory full, try again;
130 and 143 stopped by Ctrl-C or SIGTERM, the same command goes on; 141 nobody read the output to its end.
Shards are documented in resources/shard.md. `xr2ct COMMAND --help` explains one command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. A reader that leaves early, as in `| head`, ends it without a word."""
    try:
        return _run(arguments)
    except BrokenPipeError:
        if not _lost_reader():
            raise
        return EXIT_NO_READER


def _lost_reader() -> bool:
    """Whether nobody reads stdout any more; what is still to be written then goes nowhere."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _run(arguments: Sequence[str] | None) -> int:
    # Threads that spin long while they wait are many times slower as soon as anything else wants a core; threads that sleep
    # at once lose a third on a quiet machine. So they spin for some ten microseconds, as long as there is between two
    # operations of a step, and then sleep (libgomp reads this when torch is imported).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    try:
        try:
            options = build_parser().parse_args(arguments)
            return options.run(options) or 0
        finally:
            sys.stdout.flush()
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
    parser = argparse.ArgumentParser(prog="xr2ct", description=ABOUT, epilog=EXAMPLE, formatter_class=Help)
    parser.add_argument(
        "--version", action=ShowVersion, nargs=0, default=argparse.SUPPRESS, help="print the version and stop"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
