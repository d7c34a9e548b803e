"""What `python -m pipeline project` and `radiographs` understand; nothing heavy is imported before they run."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

from pipeline.errors import UserError

DEFAULTS = {
    "backend": "joseph",
    "views": ("PA", "LAT"),
    "sdd_mm": 1000.0,
    "sod_mm": 700.0,
    "energy_kev": 60.0,
}
RECORD_DETECTOR = {"detector_px": (128, 128), "pixel_mm": 3.0}
PRESETS = {
    "parallel": {"beam": "parallel"},
    "cone": {"beam": "cone"},
    "realistic": {"beam": "cone", "physics": "realistic", "scatter": "kernel"},
}
"""--simulator -> leaves that differ from the defaults; every one has an option that overrides it."""

PROJECT_EPILOG = """\
examples:
  one CT file, no workflow (native grid; the detector is fitted to the volume's shadow unless it is given):
    python -m pipeline project --volume ct.nii.gz --views PA,LAT --simulator realistic --kvp 90 --out xr.h5 --png
  oblique views as name:alpha or name:alpha:beta in degrees (0 PA, 90 left lateral; beta tilts towards the head):
    python -m pipeline project --volume ct.nii.gz --views PA,rao:-30,cranial:0:25 --simulator cone --out xr.h5
  a case of the workflow:
    python -m pipeline project results/label/a/case.json --beam cone --pixel-mm 4.2 --sdd-mm 1800 --sod-mm 1500 --out a.h5

simulators: parallel (parallel rays, one photon energy), cone (the same from a focal spot), realistic (cone; materials,
tube spectrum, energy-integrating detector, noise, blur and scatter). Each is only a set of defaults: every
option of a simulator overrides it.

the file holds per view the line integral -log(I/I0), float32 (view, v, u), unflipped, and its geometry in RAS mm:
  view, image, projection (world mm -> pixel), source_mm, detector_mm (centre of pixel (0, 0), step v, step u)
--png writes <out>_<view>.png beside it: 8 bits, dense is bright as on film. Black is the 1st and white the 99.5th percentile
of what the object covers in the view (line integrals above a fifth of the white one), or the two values of --window.
--dicom writes 16 bits, the window as tags, no patient."""

RADIOGRAPHS_EPILOG = """\
example:
  python -m pipeline radiographs --volume ct.nii.gz --kvp 60 90 120 --out sheet.png

rows: every view, monoenergetic (at the spectrum's mean energy), realistic, with scatter, with scatter behind a grid; columns:
tube voltage.
The pictures of a row share one display window, given beside it as line integrals: scatter and hard rays narrow it."""


_LEAVES = (
    ("beam", {"choices": ("parallel", "cone")}, "parallel rays, or a cone from a focal spot"),
    (
        "backend",
        {},
        "projector: joseph, siddon, reference; parallel beam also: parallel, astra, cil; realistic cone: deepdrr (GPU)",
    ),
    ("detector-px", {"type": int, "nargs": 2, "metavar": ("ROWS", "COLUMNS")}, "detector size in pixels"),
    ("pixel-mm", {"type": float, "metavar": "MM"}, "pixel size on the detector"),
    ("sdd-mm", {"type": float, "metavar": "MM"}, "cone: source-detector distance (default: 1000)"),
    ("sod-mm", {"type": float, "metavar": "MM"}, "cone: source-object distance (default: 700)"),
    ("offset-mm", {"type": float, "nargs": 2, "metavar": ("U", "V")}, "detector's centre off the central ray"),
    (
        "roll-deg",
        {"type": float, "metavar": "DEG"},
        "turn of the detector in its plane, clockwise as the picture is seen",
    ),
    ("physics", {"choices": ("monoenergetic", "realistic")}, "one photon energy, or tube, materials and detector"),
    ("energy-kev", {"type": float, "metavar": "KEV"}, "monoenergetic: photon energy (default: 60)"),
    ("spectrum", {"metavar": "NAME"}, "realistic: 60KV_AL35, 90KV_AL40 (default) or 120KV_AL43"),
    ("kvp", {"type": float, "metavar": "KV"}, "realistic: the spectrum of this tube voltage"),
    ("filter-mm-al", {"type": float, "metavar": "MM"}, "realistic: with --kvp, total filter of aluminium"),
    ("materials", {"metavar": "NAME"}, "realistic: deepdrr-v1 (default) or smooth-v1"),
    ("photons", {"type": float, "metavar": "N"}, "realistic: per open pixel; 0 = no noise (default: 100000)"),
    ("psf-px", {"type": float, "metavar": "SIGMA"}, "realistic: detector blur in pixels (default: 0.5)"),
    ("scatter", {"choices": ("none", "kernel", "montecarlo")}, "realistic: scattered photons"),
    ("scatter-photons", {"type": int, "metavar": "N"}, "montecarlo: photons followed per view (default: 2000000)"),
    ("grid", {"metavar": "NAME"}, "realistic: anti-scatter grid r8, r10 or r12 (default: none)"),
)


def add_project_arguments(stage: argparse.ArgumentParser) -> None:
    """Options of `project`: input, output, and every leaf of a simulator."""
    stage.epilog, stage.formatter_class = PROJECT_EPILOG, argparse.RawDescriptionHelpFormatter
    stage.add_argument("record", type=Path, nargs="?", help="case.json of a labelled or derived case, or --volume")
    stage.add_argument(
        "--volume", type=Path, metavar="CT", help="NIfTI, NRRD, MetaImage or a folder with a DICOM series"
    )
    stage.add_argument("--out", type=Path, required=True, help="HDF5 file for the X-rays")
    stage.add_argument("--png", action="store_true", help="also write one 8-bit picture per view beside --out")
    stage.add_argument("--dicom", action="store_true", help="also write one DICOM file per view beside --out")
    stage.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="line integrals shown black and white in pictures",
    )
    stage.add_argument("--clahe", action="store_true", help="equalise the contrast of the PNG locally, as X2BR does")
    stage.add_argument("--seed", type=int, default=1, metavar="N", help="of random angles and noise (default: 1)")
    leaves = stage.add_argument_group("simulator")
    leaves.add_argument("--simulator", choices=PRESETS, help="set of defaults (default: parallel)")
    leaves.add_argument(
        "--views", nargs="+", metavar="VIEW", help="PA, AP, LAT, RLAT, name:alpha[:beta] or JSON (default: PA,LAT)"
    )
    for name, options, about in _LEAVES:
        leaves.add_argument(f"--{name}", help=about, **options)


def leaves_of(options: argparse.Namespace) -> dict:
    """The leaves of the simulator that the options describe; of the detector only what was given."""
    names = [name.replace("-", "_") for name, _, _ in _LEAVES]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.views is not None:
        given["views"] = tuple(view for text in options.views for view in _views(text))
    return {**DEFAULTS, **PRESETS[options.simulator or "parallel"], **given}


def _views(text: str) -> list[str | dict]:
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


def run_project(options: argparse.Namespace) -> None:
    """Simulate one case of the workflow, or one file."""
    from pipeline.simulators import make_simulator

    _require_one_input(options, "project")
    _require_sane(options)
    values = leaves_of(options)
    if options.volume is None:
        from pipeline.project import project

        project(options.record, options.out, make_simulator({**RECORD_DETECTOR, **values}), seed=options.seed)
    else:
        _project_volume(options, values)
    if options.png or options.dicom:
        from pipeline.pictures import write_pictures
        from pipeline.xray_file import load_xray

        pictures = write_pictures(
            options.out,
            load_xray(options.out),
            png=options.png,
            dicom=options.dicom,
            limits=options.window,
            local_contrast=options.clahe,
        )
        say(f"pictures: {', '.join(map(str, pictures))}")
    if options.volume is not None:
        print(f"X-rays: {options.out}")


def _require_one_input(options: argparse.Namespace, stage: str) -> None:
    if (options.record is None) == (options.volume is None):
        found = "neither" if options.record is None else f"both {options.record} and {options.volume}"
        raise UserError(
            f"{stage} was given {found}; expected a case.json or --volume CT. See: python -m pipeline {stage} --help"
        )


def _require_sane(options: argparse.Namespace) -> None:
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


def _project_volume(options: argparse.Namespace, values: dict) -> None:
    from pipeline.one_volume import case_name, fit_detector, load_ct
    from pipeline.project import simulate
    from pipeline.xray_file import save_xray

    say(f"reading {options.volume}")
    ct_hu, affine = load_ct(options.volume)
    case = case_name(ct_hu, affine)
    simulator = fit_detector(values, ct_hu.shape, affine, case=case, seed=options.seed)
    rows, columns = simulator.detector_px
    fitted = "" if {"detector_px", "pixel_mm"} <= set(values) else " (fitted to the volume's shadow)"
    say(f"detector: {rows} x {columns} pixels of {simulator.pixel_mm:g} mm{fitted}")
    names = ", ".join(view if isinstance(view, str) else view["name"] for view in simulator.views)
    say(f"simulating {names}: {simulator.beam} beam, {simulator.physics}, {simulator.backend}")
    save_xray(options.out, simulate(ct_hu, affine, simulator, case=case, seed=options.seed))


def say(text: str) -> None:
    """Progress, for people: standard error."""
    print(text, file=sys.stderr, flush=True)


def add_radiographs_arguments(stage: argparse.ArgumentParser) -> None:
    """Options of `radiographs`."""
    stage.epilog, stage.formatter_class = RADIOGRAPHS_EPILOG, argparse.RawDescriptionHelpFormatter
    stage.add_argument("record", type=Path, nargs="?", help="case.json of a labelled or derived case, or --volume")
    stage.add_argument(
        "--volume", type=Path, metavar="CT", help="NIfTI, NRRD, MetaImage or a folder with a DICOM series"
    )
    stage.add_argument("--kvp", type=float, nargs="+", default=[60.0, 90.0, 120.0], help="tube voltages (60 90 120)")
    stage.add_argument("--views", nargs="+", default=["PA,LAT"], metavar="VIEW", help="as of `project` (PA,LAT)")
    stage.add_argument("--size-px", type=int, default=256, metavar="N", help="pixels per side of one picture (256)")
    stage.add_argument("--seed", type=int, default=1, metavar="N", help="of noise and random angles (1)")
    stage.add_argument("--out", type=Path, required=True, help="PNG to write")


def run_radiographs(options: argparse.Namespace) -> None:
    """One contact sheet of one CT."""
    from pipeline.radiographs import radiographs

    _require_one_input(options, "radiographs")
    _require_sane(options)
    if len(set(options.kvp)) < len(options.kvp):
        raise UserError(f"--kvp {' '.join(f'{kvp:g}' for kvp in options.kvp)} names a voltage twice. Remove one.")
    views = tuple(view for text in options.views for view in _views(text))
    radiographs(
        record=options.record,
        volume=options.volume,
        out=options.out,
        kvps=options.kvp,
        views=views,
        size_px=options.size_px,
        seed=options.seed,
        say=say,
    )
    if options.volume is not None:
        print(f"radiographs: {options.out}")
