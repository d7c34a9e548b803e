"""Command line of `python -m pipeline index`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands.options import add_archives, add_stage


def add(stages: argparse._SubParsersAction) -> None:
    stage = add_stage(
        stages, "index", "List the cases of a public data set; downloads its archives if they are not there."
    )
    add_archives(stage)
    stage.add_argument("--out", type=Path, required=True, help="JSON file for the list of cases")
    stage.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from pipeline.sources import get_edition
    from pipeline.sources.contract import write_index
    from pipeline.sources.shelf import Shelf

    version, edition = get_edition(options.source, options.version)
    count = write_index(edition, Shelf(options.archives, options.given), options.out)
    print(f"{options.source} {version}: {count} cases, licence {edition.license}; may be mixed {edition.mixing}")
