"""Command line of the data preparation: `python -m pipeline <stage>`; the rules of the workflow call exactly this."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from pipeline.commands import cohort, derive, fetch, index, ingest, label, project, radiographs, segment, shard
from pipeline.commands.options import ShowVersion
from pipeline.errors import TooManyQuarantined, TransientError, UserError

STAGES = (index, fetch, segment, ingest, label, cohort, derive, project, radiographs, shard)
EXIT_USER, EXIT_QUARANTINE, EXIT_TRANSIENT, EXIT_NO_READER = 2, 4, 75, 141

_EPILOG = """\
data flows one way: fetch -> (segment ->) ingest -> label -> cohort -> derive -> project -> shard. Every stage reads the
case.json of the stage before it and publishes its own one last. A CT that cannot be used is set aside with a code and a
reason, and the command still ends with 0; wrong use ends with 2, too many unusable cases with 4, a fault worth a retry
with 75.

example, one CT by hand:
  python -m pipeline fetch --case lidc --package-case lidc-idri-0001 --split train --out results/fetch/lidc
  python -m pipeline ingest results/fetch/lidc/case.json --out results/ingest/lidc
  python -m pipeline label results/ingest/lidc/case.json --structures heart aorta --out results/label/lidc
  python -m pipeline project results/label/lidc/case.json --beam cone --pixel-mm 4.2 --sdd-mm 1800 --sod-mm 1500 \\
      --out results/project/cone/lidc.h5
  python -m pipeline shard results/label/lidc/case.json --projections results/project --simulators cone \\
      --out results/shards/lidc-idri/train-00000-of-00001.h5
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser with one sub-command per stage."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline",
        description="Prepare CTs and simulate X-rays, one stage at a time.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=ShowVersion, nargs=0, default=argparse.SUPPRESS, help="print the version and stop"
    )
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for stage in STAGES:
        stage.add(stages)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage; returns the exit code. A reader that leaves early, as in `| head`, ends it without a word."""
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
    try:
        try:
            options = build_parser().parse_args(arguments)
            options.run(options)
        finally:
            sys.stdout.flush()
    except UserError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return EXIT_USER
    except TooManyQuarantined as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return EXIT_QUARANTINE
    except TransientError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return EXIT_TRANSIENT
    except MemoryError:
        print("ERROR: out of memory. Give the stage more memory or fewer cores, then run it again.", file=sys.stderr)
        return EXIT_TRANSIENT
    except (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        print(f"ERROR: {error.filename}: {error.strerror}. Give another path.", file=sys.stderr)
        return EXIT_USER
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE):
            raise
        why = os.strerror(error.errno)
        print(f"ERROR: {why}. Make room or mend the disk, then run the same command again.", file=sys.stderr)
        return EXIT_TRANSIENT
    return 0


if __name__ == "__main__":
    sys.exit(main())
