"""Stage radiographs: one sheet of pictures of one CT, so that people can look at what the simulator does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from pipeline.display import anatomy_window, to_8bit, window
from pipeline.nifti import load_nifti
from pipeline.one_volume import case_name, fit_detector, load_ct
from pipeline.physics.spectra import mean_energy_kev, spectrum_of
from pipeline.pictures import save_png
from pipeline.project import simulate
from pipeline.records import located, read_record
from pipeline.simulators import DEFAULTS

KINDS = {
    "monoenergetic": {"physics": "monoenergetic"},
    "realistic": {"physics": "realistic"},
    "realistic + scatter": {"physics": "realistic", "scatter": "kernel"},
    "scatter, grid r10": {"physics": "realistic", "scatter": "kernel", "grid": "r10"},
}
"""Caption of a row -> its leaves of the simulator."""

_LEFT, _TOP, _GAP, _TEXT = 150, 30, 6, 15


def radiographs(
    *,
    record: Path | None,
    volume: Path | None,
    out: Path,
    kvps: Sequence[float],
    views: Sequence[str | dict],
    size_px: int,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Rows view x kind of simulation, columns tube voltage; the monoenergetic row takes the spectrum's mean energy."""
    if volume is not None:
        ct_hu, affine = load_ct(volume, say)
        case = case_name(ct_hu, affine)
    else:
        known = read_record(record, "label", "derive")
        ct_hu, affine, case = load_nifti(located(record, "ct")), np.array(known["affine"]), known["case"]
    spectra = {f"{kvp:g} kV": spectrum_of(kvp) for kvp in kvps}
    pictures: dict[tuple[str, str], list[ndarray]] = {}
    for kind, leaves in KINDS.items():
        for column, kvp in zip(spectra, kvps, strict=True):
            say(f"simulating {kind} at {column}")
            tube = {"energy_kev": mean_energy_kev(spectra[column])} if kind == "monoenergetic" else {"kvp": kvp}
            values = {**DEFAULTS, "beam": "cone", "views": tuple(views), "detector_px": (size_px, size_px)}
            simulator = fit_detector({**values, **leaves, **tube}, ct_hu.shape, affine, case=case, seed=seed)
            xray = simulate(ct_hu, affine, simulator, case=case, seed=seed)
            for view, image in zip(xray.views, xray.image, strict=True):
                pictures.setdefault((view, kind), []).append(image)
    ordered = sorted(pictures, key=lambda key: [name for name, _ in pictures].index(key[0]))
    save_png(out, sheet(dict(windowed(key, pictures[key]) for key in ordered), list(spectra)))


def windowed(captions: tuple[str, ...], images: list[ndarray]) -> tuple[tuple[str, ...], list[ndarray]]:
    """One row in one display window, so that tube voltages can be compared; the window becomes the last caption."""
    low, high = anatomy_window(np.stack(images))
    return (*captions, f"{low:.2f} to {high:.2f}"), [to_8bit(window(image, low, high)) for image in images]


def sheet(rows: dict[tuple[str, ...], list[ndarray]], columns: Sequence[str]) -> UInt8[ndarray, "v u"]:
    """Equal 8-bit pictures in a grid with a caption per column above and the row's key, one line each, on the left."""
    high, wide = next(iter(rows.values()))[0].shape
    size = (_LEFT + len(columns) * (wide + _GAP), _TOP + len(rows) * (high + _GAP))
    page = Image.new("L", size, 255)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(_TEXT)
    for number, caption in enumerate(columns):
        draw.text((_LEFT + number * (wide + _GAP) + wide / 2, _TOP / 2), caption, fill=0, font=font, anchor="mm")
    for number, (key, pictures) in enumerate(rows.items()):
        top = _TOP + number * (high + _GAP)
        draw.text((8, top + high / 2), "\n".join(key), fill=0, font=font, anchor="lm")
        for place, picture in enumerate(pictures):
            page.paste(Image.fromarray(picture), (_LEFT + place * (wide + _GAP), top))
    return np.asarray(page)
