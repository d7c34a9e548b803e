"""Command line of `python -m pipeline project`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands.options import add_ct, add_stage, parse_views, require_one_ct, require_sane, say

RECORD_DETECTOR = {"detector_px": (128, 128), "pixel_mm": 3.0}
PRESETS = {
    "parallel": {"beam": "parallel"},
    "cone": {"beam": "cone"},
    "realistic": {"beam": "cone", "physics": "realistic", "scatter": "kernel"},
}
"""--simulator -> leaves that differ from the defaults; every one has an option that overrides it."""

_EPILOG = """\
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


def add(stages: argparse._SubParsersAction) -> None:
    stage = add_stage(stages, "project", "Simulate the X-rays of one case, or of one CT file.", _EPILOG)
    add_ct(stage)
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
    stage.set_defaults(run=run)


def leaves_of(options: argparse.Namespace) -> dict:
    """The leaves of the simulator that the options describe; of the detector only what was given."""
    from pipeline.simulators import DEFAULTS

    names = [name.replace("-", "_") for name, _, _ in _LEAVES]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.views is not None:
        given["views"] = tuple(view for text in options.views for view in parse_views(text))
    return {**DEFAULTS, **PRESETS[options.simulator or "parallel"], **given}


def run(options: argparse.Namespace) -> None:
    """Simulate one case of the workflow, or one file."""
    from pipeline.simulators import make_simulator

    require_one_ct(options, "project")
    require_sane(options)
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


def _project_volume(options: argparse.Namespace, values: dict) -> None:
    from pipeline.one_volume import case_name, fit_detector, load_ct
    from pipeline.project import simulate
    from pipeline.xray_file import save_xray

    ct_hu, affine = load_ct(options.volume, say)
    case = case_name(ct_hu, affine)
    simulator = fit_detector(values, ct_hu.shape, affine, case=case, seed=options.seed)
    rows, columns = simulator.detector_px
    fitted = "" if {"detector_px", "pixel_mm"} <= set(values) else " (fitted to the volume's shadow)"
    say(f"detector: {rows} x {columns} pixels of {simulator.pixel_mm:g} mm{fitted}")
    names = ", ".join(view if isinstance(view, str) else view["name"] for view in simulator.views)
    say(f"simulating {names}: {simulator.beam} beam, {simulator.physics}, {simulator.backend}")
    save_xray(options.out, simulate(ct_hu, affine, simulator, case=case, seed=options.seed))
