"""Command line of `python -m pipeline fetch`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands.options import add_archives, add_stage
from pipeline.errors import UserError


def add(stages: argparse._SubParsersAction) -> None:
    stage = add_stage(stages, "fetch", "Bring one CT into reach, with its licence and its patient's hashed key.")
    stage.add_argument(
        "--list", action="store_true", help="print the sources and the CTs that packages offer, and stop"
    )
    add_archives(stage)
    stage.add_argument("--case", help="case id: letters, digits, '.', '_', '-'")
    stage.add_argument("--split", choices=("train", "validation", "test"), default="test", help="split of the case")
    stage.add_argument("--out", type=Path, help="folder of this case in this stage")
    stage.add_argument("--index", type=Path, help="list of its cases; default: results/sources/<source>-<version>.json")
    stage.add_argument("--package-case", help="a CT inside a PyPI package, by its name in --list")
    stage.add_argument(
        "--ct", default="", help="or your own CT: NIfTI, NRRD, MetaImage or a folder with one DICOM series"
    )
    stage.add_argument(
        "--label", default="", help="label map of --ct (its voxels or a box of them) or DICOM segmentation"
    )
    stage.add_argument("--label-scheme", default="totalsegmentator_v2", help="table in resources/labels naming its ids")
    stage.add_argument("--dataset", default="folder", help="data set of --ct")
    stage.add_argument(
        "--assume-orientation", default="", metavar="LAS", help="of a NIfTI --ct that gives none: where its axes run to"
    )
    stage.add_argument("--license", default="LicenseRef-private", help="SPDX id of its licence")
    stage.add_argument("--attribution", default="", help="whom to credit for it")
    stage.add_argument("--subject-key", default="", help="hashed patient of --ct; default: DICOM PatientID or the case")
    stage.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from pipeline.fetch import fetch_case, fetch_file, fetch_package
    from pipeline.orientation import require_axes
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
    require_axes(options.assume_orientation)
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
            assume_orientation=options.assume_orientation,
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
            print(f"    {case:<18}{entry.package.requirement:<26}{entry.license:<14}{labels}")
