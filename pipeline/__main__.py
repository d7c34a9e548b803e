"""Command line of the data preparation: `python -m pipeline <stage>`; the rules of the workflow call exactly this."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from pipeline.errors import TooManyQuarantined, TransientError, UserError
from pipeline.project_command import (
    add_project_arguments,
    add_radiographs_arguments,
    run_project,
    run_radiographs,
)

EXIT_USER, EXIT_QUARANTINE, EXIT_TRANSIENT = 2, 4, 75

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
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name, (add_arguments, run, about) in STAGES.items():
        stage = stages.add_parser(
            name, help=about, description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        add_arguments(stage)
        stage.set_defaults(run=run)
    return parser


def _record_and_out(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("record", type=Path, help="case.json of the stage before")
    stage.add_argument("--out", type=Path, required=True, help="folder of this case in this stage")


def _archive_arguments(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("--source", default="", help="a public data set, by its name in `fetch --list`")
    stage.add_argument("--version", default="", help="which version of it; empty: the first in `fetch --list`")
    stage.add_argument("--archives", type=Path, default=Path("results/archives"), help="where its archives are kept")
    stage.add_argument("--from", type=Path, dest="given", help="folder in which its archives lie already: no download")


def _index_arguments(stage: argparse.ArgumentParser) -> None:
    _archive_arguments(stage)
    stage.add_argument("--out", type=Path, required=True, help="JSON file for the list of cases")


def _index(options: argparse.Namespace) -> None:
    from pipeline.sources import get_edition
    from pipeline.sources.contract import write_index
    from pipeline.sources.shelf import Shelf

    version, edition = get_edition(options.source, options.version)
    count = write_index(edition, Shelf(options.archives, options.given), options.out)
    print(f"{options.source} {version}: {count} cases, licence {edition.license}; may be mixed {edition.mixing}")


def _fetch_arguments(stage: argparse.ArgumentParser) -> None:
    stage.add_argument(
        "--list", action="store_true", help="print the sources and the CTs that packages offer, and stop"
    )
    _archive_arguments(stage)
    stage.add_argument("--case", help="case id: letters, digits, '.', '_', '-'")
    stage.add_argument("--split", choices=("train", "validation", "test"), default="test", help="split of the case")
    stage.add_argument("--out", type=Path, help="folder of this case in this stage")
    stage.add_argument("--index", type=Path, help="list of its cases; default: results/sources/<source>-<version>.json")
    stage.add_argument("--package-case", help="a CT inside a PyPI package, by its name in --list")
    stage.add_argument("--ct", default="", help="or your own CT: NIfTI, NRRD or a folder with one DICOM series")
    stage.add_argument("--label", default="", help="label map of --ct, same voxels or a box cropped from them")
    stage.add_argument("--label-scheme", default="totalsegmentator_v2", help="table in resources/labels naming its ids")
    stage.add_argument("--dataset", default="folder", help="data set of --ct")
    stage.add_argument("--license", default="LicenseRef-private", help="SPDX id of its licence")
    stage.add_argument("--attribution", default="", help="whom to credit for it")
    stage.add_argument("--subject-key", default="", help="hashed patient of --ct; default: DICOM PatientID or the case")
    stage.add_argument("--bad-id-line", type=int, default=0, help=argparse.SUPPRESS)


def _fetch(options: argparse.Namespace) -> None:
    from pipeline.fetch import fetch_case, fetch_file, fetch_package
    from pipeline.patients import is_case_id
    from pipeline.sources import get_edition
    from pipeline.sources.contract import index_path
    from pipeline.sources.packages import PACKAGE_CASES
    from pipeline.sources.shelf import Shelf
    from pipeline.structures import load_scheme

    if options.list:
        _list_sources()
        return
    if not options.case or not options.out:
        raise UserError("fetch needs --case and --out (or --list). See: python -m pipeline fetch --help")
    if not is_case_id(options.case):
        raise UserError(
            f"case id {options.case!r} cannot be a file name; expected letters, digits, '.', '_', '-', at most 64."
        )
    load_scheme(options.label_scheme)
    if options.source:
        version, _ = get_edition(options.source, options.version)
        fetch_case(
            options.case,
            options.split,
            options.out,
            source=options.source,
            version=version,
            index=options.index or index_path(options.source, version),
            shelf=Shelf(options.archives, options.given),
        )
    elif options.package_case:
        if options.package_case not in PACKAGE_CASES:
            raise UserError(
                f"package case {options.package_case!r} is not known; expected one of: {', '.join(PACKAGE_CASES)}."
            )
        fetch_package(options.case, options.split, options.package_case, options.out)
    else:
        fetch_file(
            options.case,
            options.split,
            options.out,
            ct=options.ct,
            label=options.label,
            key=options.subject_key,
            dataset=options.dataset,
            license=options.license,
            attribution=options.attribution,
            label_scheme=options.label_scheme,
            bad_id_line=options.bad_id_line,
        )


def _list_sources() -> None:
    from pipeline.sources import SOURCES
    from pipeline.sources.packages import PACKAGE_CASES

    for name, source in SOURCES.items():
        print(f"{name}: {source.about}")
        for version, edition in source.editions.items():
            print(f"    version {version}, {edition.license}, may be mixed {edition.mixing}")
        for case, entry in PACKAGE_CASES.items() if name == "packages" else ():
            labels = "labelled" if entry.label else "no labels"
            print(f"    {case:<18}{entry.package.requirement:<26}{entry.license:<12}{labels}")


def _ingest_arguments(stage: argparse.ArgumentParser) -> None:
    _record_and_out(stage)
    stage.add_argument("--cube", type=int, default=128, help="voxels per side of the cube")
    stage.add_argument("--spacing-mm", type=float, default=3.0, help="voxel size of the cube in mm")
    stage.add_argument(
        "--region", choices=("cube", "structures", "spine", "vertebra"), default="cube", help="which part of the CT"
    )
    stage.add_argument(
        "--along",
        nargs="+",
        default=[],
        metavar="NAME",
        help="structures: groups that the CT must hold; vertebra: L1 L2 ..., each a case of its own in <out>-L1, ...",
    )


def _ingest(options: argparse.Namespace) -> None:
    from pipeline.ingest import ingest, ingest_vertebrae

    grid = {"cube": options.cube, "spacing_mm": options.spacing_mm}
    if bool(options.along) != (options.region in ("structures", "vertebra")):
        raise UserError(
            f"--region {options.region} with --along {' '.join(options.along) or '(nothing)'}; expected names for "
            "structures and vertebra, none for cube and spine."
        )
    if options.region == "vertebra":
        ingest_vertebrae(options.record, options.out, options.along, **grid)
    else:
        ingest(options.record, options.out, region=options.region, along=tuple(options.along), **grid)


def _segment_arguments(stage: argparse.ArgumentParser) -> None:
    _record_and_out(stage)
    stage.add_argument("--structures", nargs="+", required=True, help="structure groups to look for")
    stage.add_argument("--fast", action="store_true", help="the 3 mm network alone in place of five of 1.5 mm")
    stage.add_argument("--all-classes", action="store_true", help="look for all 117 classes, not for --structures only")
    stage.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="where TotalSegmentator runs")


def _segment(options: argparse.Namespace) -> None:
    from pipeline.segment import segment_case

    segment_case(
        options.record,
        options.out,
        structures=options.structures,
        fast=options.fast,
        all_classes=options.all_classes,
        device=options.device,
    )


def _label_arguments(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("records", type=Path, nargs="+", metavar="record", help="case.json of the stage before")
    stage.add_argument("--out", type=Path, required=True, help="folder of this case in this stage")
    stage.add_argument(
        "--vertebrae", action="store_true", help="the records are vertebrae of one CT; each goes to <out>-L1, ..."
    )
    stage.add_argument(
        "--structures", nargs="+", required=True, help="structure groups, in the order of their ids 1..K"
    )


def _label(options: argparse.Namespace) -> None:
    from pipeline.label import label, label_vertebrae

    if options.vertebrae:
        label_vertebrae(options.records, options.out, structures=options.structures)
    elif len(options.records) > 1:
        raise UserError(
            f"label was given {len(options.records)} records; expected one, or --vertebrae. Label each case alone."
        )
    else:
        label(options.records[0], options.out, structures=options.structures)


def _cohort_arguments(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("records", type=Path, nargs="*", help="case.json of every case after the label stage")
    stage.add_argument("--listed-in", type=Path, metavar="FILE", help="text file with more of them, one a line")
    stage.add_argument("--out", type=Path, required=True, help="folder for cases.tsv and quarantine.tsv")
    stage.add_argument("--max-quarantine-fraction", type=float, default=0.05, help="stop above it, from 20 cases on")


def _cohort(options: argparse.Namespace) -> None:
    from pipeline.cohort import gather

    records = list(options.records)
    if options.listed_in:
        try:
            records += map(Path, options.listed_in.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError):
            raise UserError(f"--listed-in {options.listed_in} cannot be read; expected a text file.") from None
    if not records:
        raise UserError("cohort was given no record; expected the case.json of every case, or --listed-in FILE.")
    gather(records, options.out, max_quarantine_fraction=options.max_quarantine_fraction)


def _derive_arguments(stage: argparse.ArgumentParser) -> None:
    _record_and_out(stage)
    stage.add_argument("--case", required=True, help="id of the new case")
    stage.add_argument("--split", choices=("train", "family_validation", "family", "family_transfer"), required=True)
    stage.add_argument("--number", type=int, required=True, help="which of the parent's deformations")
    stage.add_argument("--seed", type=int, default=1, help="seed of the experiment")
    for option, default, unit in (
        ("control-spacing-mm", 60.0, "distance of the random field's control points, mm"),
        ("max-displacement-mm", 12.0, "largest elastic displacement, mm"),
        ("max-shift-mm", 8.0, "largest shift along each axis, mm"),
        ("max-rotation-deg", 4.0, "largest rotation about each axis, degrees"),
        ("max-scale", 0.05, "largest relative change of size"),
        ("structure-hu", 15.0, "standard deviation of each structure's HU change"),
        ("noise-hu", 10.0, "standard deviation of the added noise, HU"),
    ):
        stage.add_argument(f"--{option}", type=float, default=default, help=unit)


def _derive(options: argparse.Namespace) -> None:
    from pipeline.deform import Strength
    from pipeline.derive import derive

    strength = Strength(**{item.name: getattr(options, item.name) for item in fields(Strength)})
    derive(
        options.record,
        options.out,
        case=options.case,
        split=options.split,
        number=options.number,
        seed=options.seed,
        strength=strength,
    )


def _shard_arguments(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("records", type=Path, nargs="+", help="case.json of the cases, all of one data set and split")
    stage.add_argument("--projections", type=Path, required=True, help="folder with <simulator>/<case>.h5")
    stage.add_argument("--simulators", nargs="+", required=True, help="which simulators' X-rays to store")
    stage.add_argument("--index", type=int, default=0, help="number of this shard, from 0")
    stage.add_argument("--count", type=int, default=1, help="number of shards of this data set and split")
    stage.add_argument("--config", default='{"seed": 1}', help="JSON that the shard keeps: how its data was made")
    stage.add_argument("--out", type=Path, required=True, help="the shard, .h5")


def _shard(options: argparse.Namespace) -> None:
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


STAGES: dict[str, tuple[Callable, Callable, str]] = {
    "index": (
        _index_arguments,
        _index,
        "List the cases of a public data set; downloads its archives if they are not there.",
    ),
    "fetch": (_fetch_arguments, _fetch, "Bring one CT into reach, with its licence and its patient's hashed key."),
    "segment": (_segment_arguments, _segment, "Label one CT that brings no labels, by TotalSegmentator."),
    "ingest": (_ingest_arguments, _ingest, "Read, check and resample one CT onto the cube, int16 HU in RAS mm."),
    "label": (_label_arguments, _label, "Put the labels of one CT onto its cube, by structure name."),
    "cohort": (_cohort_arguments, _cohort, "Decide who goes on; refuse a patient in two splits."),
    "derive": (_derive_arguments, _derive, "Deform one labelled CT into a new case of the same patient."),
    "project": (add_project_arguments, run_project, "Simulate the X-rays of one case, or of one CT file."),
    "radiographs": (add_radiographs_arguments, run_radiographs, "Draw a contact sheet of one CT's simulated X-rays."),
    "shard": (_shard_arguments, _shard, "Write one HDF5 shard that other projects read."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage; returns the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
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
