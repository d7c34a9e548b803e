"""Command line of `python -m pipeline shard`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pipeline.commands.options import add_stage
from pipeline.errors import UserError


def add(stages: argparse._SubParsersAction) -> None:
    stage = add_stage(stages, "shard", "Write one HDF5 shard that other projects read.")
    stage.add_argument("records", type=Path, nargs="+", help="case.json of the cases, all of one data set and split")
    stage.add_argument("--projections", type=Path, required=True, help="folder with <simulator>/<case>.h5")
    stage.add_argument("--simulators", nargs="+", required=True, help="which simulators' X-rays to store")
    stage.add_argument("--index", type=int, default=0, help="number of this shard, from 0")
    stage.add_argument("--count", type=int, default=1, help="number of shards of this data set and split")
    stage.add_argument("--config", default='{"seed": 1}', help="JSON that the shard keeps: how its data was made")
    stage.add_argument("--out", type=Path, required=True, help="the shard, .h5")
    stage.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from pipeline.shard import shard

    shard(
        options.records,
        options.projections,
        options.out,
        simulators=options.simulators,
        index=options.index,
        count=options.count,
        config=_json(options.config, "--config"),
    )


def _json(text: str, option: str) -> dict:
    """A JSON object given on the command line."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"{option} {text!r} is not JSON ({error}).") from None
    if not isinstance(value, dict):
        raise UserError(f"{option} {text!r} is not a JSON object.")
    return value
