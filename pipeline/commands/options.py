"""Options that several stages share."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

from pipeline.errors import UserError


class ShowVersion(argparse.Action):
    """Print the version of the installed package; looked up only then, for that takes as long as starting."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("xr2ct")
        except PackageNotFoundError:
            found = "unknown"
        print(f"xr2ct {found}")
        parser.exit()


def add_stage(
    stages: argparse._SubParsersAction, name: str, about: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    """The parser of one stage; with an epilog of its own, that tells the defaults."""
    shape = argparse.RawDescriptionHelpFormatter if epilog else argparse.ArgumentDefaultsHelpFormatter
    return stages.add_parser(name, help=about, description=about, epilog=epilog, formatter_class=shape)


def add_record_and_out(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("record", type=Path, help="case.json of the stage before")
    stage.add_argument("--out", type=Path, required=True, help="folder of this case in this stage")


def add_archives(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("--source", default="", help="a public data set, by its name in `fetch --list`")
    stage.add_argument("--version", default="", help="which version of it; empty: the first in `fetch --list`")
    stage.add_argument("--archives", type=Path, default=Path("results/archives"), help="where its archives are kept")
    stage.add_argument("--from", type=Path, dest="given", help="folder in which its archives lie already: no download")


def add_ct(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("record", type=Path, nargs="?", help="case.json of a labelled or derived case, or --volume")
    stage.add_argument(
        "--volume", type=Path, metavar="CT", help="NIfTI, NRRD, MetaImage or a folder with a DICOM series"
    )


def parse_views(text: str) -> list[str | dict]:
    """Views of one word of the command line: JSON, or names and name:alpha[:beta] with commas."""
    if text.lstrip().startswith("{"):
        try:
            return [json.loads(text)]
        except ValueError as error:
            raise UserError(
                f"--views {text!r} is not JSON ({error}); expected {{name, alpha_deg, beta_deg}}."
            ) from None
    return [_view(part.strip()) for part in text.split(",") if part.strip()]


def _view(text: str) -> str | dict:
    name, *angles = text.split(":")
    if not angles:
        return name
    try:
        alpha, beta = map(float, angles if len(angles) > 1 else [*angles, "0"])
        return {"name": name, "alpha_deg": alpha, "beta_deg": beta}
    except ValueError:
        raise UserError(
            f"view {text!r}; expected name:alpha or name:alpha:beta in degrees, for example rao:-30."
        ) from None


def require_one_ct(options: argparse.Namespace, stage: str) -> None:
    if (options.record is None) == (options.volume is None):
        found = "neither" if options.record is None else f"both {options.record} and {options.volume}"
        raise UserError(
            f"{stage} was given {found}; expected a case.json or --volume CT. See: python -m pipeline {stage} --help"
        )


def require_sane(options: argparse.Namespace) -> None:
    """What can be known to be wrong before a CT is read."""
    if options.seed < 0:
        raise UserError(f"--seed {options.seed}; expected 0 or more. Correct it.")
    out = options.out.resolve()
    for given in (options.volume, options.record):
        if given is not None and (out == given.resolve() or given.resolve() in out.parents):
            raise UserError(f"--out {options.out} would overwrite or lie inside the input {given}. Name another file.")
    if options.out.is_dir() or not options.out.name:
        raise UserError(f"--out {str(options.out)!r} is a folder; expected the name of a file to write. Add one.")
    limits = getattr(options, "window", None)
    if limits is not None and not (math.isfinite(limits[0]) and math.isfinite(limits[1]) and limits[0] < limits[1]):
        raise UserError(f"--window {limits[0]:g} {limits[1]:g}; expected two line integrals, the lower one first.")


def say(text: str) -> None:
    """Progress, for people: standard error."""
    print(text, file=sys.stderr, flush=True)
