"""One picture of one case: the X-rays, the true slices and every run's, and the structures in them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Real, Shaped
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from xr2ct import pictures
from xr2ct.files import publish
from xr2ct.gallery import Hanging, hang, load_run
from xr2ct.nifti import VolumeError
from xr2ct.planes import PLANES, Edges, cut, cut_aspect, cut_edges, xray_edges
from xr2ct.reconstructions import Run
from xr2ct.shards import NOT_ANNOTATED, Shard
from xr2ct.summary import SPLITS

TILE, GAP, HEAD, FOOT = 256, 8, 34, 34
LINE, MOST_LINES = 19, 13  # of the legend
PAPER, INK, SOFT = (255, 255, 255), (30, 34, 40), (105, 112, 122)
CORONAL, SAGITTAL = PLANES[1:]

Column = tuple[str, list[Image.Image]]
Volumes = tuple[ndarray, ndarray | None]  # HU and label


def write_poster(path: Path, shard: Shard, runs: Sequence[Run]) -> None:
    """PNG of the first case of `shard`: X-rays by the last run's simulator, coronal and sagittal slices of all runs.

    A third row shows the structures in that coronal slice and the names of their colours, if the true CT or a run has any
    there; a run without labels has no tile in it, and a true CT that nobody annotated says so.
    """
    hanging = hang(shard.case(0))
    annotated = hanging.case.label_status != NOT_ANNOTATED
    true = (hanging.ct_hu, hanging.label if annotated[1:].any() else None)
    volumes: list[tuple[str, Volumes | None]] = [("true CT", true)]
    for run in runs:
        try:
            volumes.append((run.name, load_run(hanging, run, shard.structures)))
        except VolumeError:
            volumes.append((f"{run.name}: not available", None))
    labels = [cut(both[1], CORONAL, hanging.at) for _, both in volumes if both and both[1] is not None]
    shown = sorted({int(value) for label in labels for value in np.unique(label) if 0 < value < len(shard.structures)})

    columns = [_xray_column(shard, runs)]
    columns += [(name, _cuts(hanging, *both, labelled=bool(shown)) if both else []) for name, both in volumes]
    if shown:
        doubt = {value: "" if annotated[value] else " (not annotated)" for value in shown}
        names = [(shard.structures[value] + doubt[value], pictures.colour(value)) for value in shown]
        (_, xrays), (_, true_cuts) = columns[:2]
        xrays += [_note()] * (2 - len(xrays)) + [_legend(names)]
        if true[1] is None:
            true_cuts.append(_note("not annotated"))
    case = hanging.case
    low, high = pictures.DISPLAY_HU
    foot = f"{case.id} ({case.split}: {SPLITS.get(case.split, 'a split of your own')}); slices {low:g} to {high:g} HU"
    with publish(path) as temporary:
        temporary.write_bytes(pictures.png(_pasted(columns, foot)))


def _pasted(columns: Sequence[Column], foot: str) -> Image.Image:
    """All tiles under the names of their columns, above the foot."""
    width, rows = GAP + len(columns) * (TILE + GAP), max(len(tiles) for _, tiles in columns)
    poster = Image.new("RGB", (width, HEAD + rows * (TILE + GAP) + FOOT), PAPER)
    draw, font = ImageDraw.Draw(poster), ImageFont.load_default(15)
    for number, (name, tiles) in enumerate(columns):
        left = GAP + number * (TILE + GAP)
        draw.text((left + 2, 9), name, fill=INK, font=font)
        for row, tile in enumerate(tiles):
            poster.paste(tile, (left, HEAD + row * (TILE + GAP)))
    draw.text((GAP + 2, poster.height - FOOT + 6), foot, fill=SOFT, font=font)
    return poster


def _note(text: str = "") -> Image.Image:
    """A tile of paper with one line of text."""
    tile = Image.new("RGB", (TILE, TILE), PAPER)
    ImageDraw.Draw(tile).text((2, LINE / 2), text, fill=SOFT, font=ImageFont.load_default(13), anchor="lm")
    return tile


def _legend(structures: Sequence[tuple[str, str]]) -> Image.Image:
    """A tile with the name of every structure beside its colour, as many as there is room for."""
    tile = _note()
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(13)
    fitting = len(structures) if len(structures) <= MOST_LINES else MOST_LINES - 1
    for line, (name, colour) in enumerate(structures[:fitting]):
        draw.rectangle((2, line * LINE + 3, 14, line * LINE + 15), fill=colour)
        draw.text((22, line * LINE + 9), name.replace("_", " "), fill=INK, font=font, anchor="lm")
    if fitting < len(structures):
        draw.text((22, fitting * LINE + 9), f"and {len(structures) - fitting} more", fill=SOFT, font=font, anchor="lm")
    return tile


def _xray_column(shard: Shard, runs: Sequence[Run]) -> Column:
    wanted = [run.simulator for run in runs if run.simulator in shard.simulators]
    simulator = wanted[-1] if wanted else shard.simulators[0]
    xray, case = shard.xray(0, simulator), shard.case(0)
    centre = (case.affine @ [*(np.array(case.ct_hu.shape[::-1]) - 1) / 2, 1])[:3]
    tiles = []
    for image, projection, detector in list(zip(xray.image, xray.projection, xray.detector_mm, strict=True))[:2]:
        step_v, step_u = np.linalg.norm(detector[1:], axis=1)
        aspect = image.shape[1] * step_u / (image.shape[0] * step_v)
        tiles.append(_tile(pictures.radiograph(image), float(aspect), xray_edges(projection, centre)))
    return f"X-rays ({simulator})", tiles


def _cuts(
    hanging: Hanging, ct_hu: Real[ndarray, "x y z"], label: Shaped[ndarray, "x y z"] | None, *, labelled: bool
) -> list[Image.Image]:
    """Coronal, sagittal and, if asked for and there is one, coronal with the label."""
    wanted = [(CORONAL, None), (SAGITTAL, None)]
    if labelled and label is not None:
        wanted.append((CORONAL, label))
    tiles = []
    for plane, over in wanted:
        values = cut(ct_hu, plane, hanging.at)
        image = pictures.grey(values, *pictures.DISPLAY_HU)
        aspect, edges = cut_aspect(hanging.affine, plane, values.shape), cut_edges(hanging.affine, plane)
        tiles.append(_tile(image, aspect, edges, None if over is None else cut(over, plane, hanging.at)))
    return tiles


def _tile(
    image: Image.Image, aspect: float, edges: Edges, label: Shaped[ndarray, "rows columns"] | None = None
) -> Image.Image:
    """The picture in true proportions on a black square, labels over it, with the patient's sides at its edges."""
    size = (TILE, max(1, round(TILE / aspect))) if aspect >= 1 else (max(1, round(TILE * aspect)), TILE)
    tile = Image.new("RGB", (TILE, TILE))
    scaled = image.resize(size, Image.Resampling.BICUBIC)
    if label is not None:
        scaled = pictures.laid_over(scaled, label)
    tile.paste(scaled, ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    draw, font, middle = ImageDraw.Draw(tile), ImageFont.load_default(13), TILE / 2
    for text, xy, anchor in (
        (edges.left, (5, middle), "lm"),
        (edges.right, (TILE - 5, middle), "rm"),
        (edges.top, (middle, 4), "mt"),
        (edges.bottom, (middle, TILE - 4), "mb"),
    ):
        draw.text(xy, text, fill=(240, 200, 90), font=font, anchor=anchor)
    return tile
