"""One picture of one case: the X-rays, the true slices and every run's, in one row per view."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Real
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from xr2ct import pictures
from xr2ct.files import publish
from xr2ct.gallery import Hanging, hang, load_run
from xr2ct.nifti import VolumeError
from xr2ct.planes import PLANES, Edges, cut, cut_aspect, cut_edges, xray_edges
from xr2ct.reconstructions import Run
from xr2ct.shards import Shard
from xr2ct.summary import SPLITS

TILE, GAP, HEAD, FOOT = 256, 8, 34, 34
PAPER, INK, SOFT = (255, 255, 255), (30, 34, 40), (105, 112, 122)


def write_poster(path: Path, shard: Shard, runs: Sequence[Run]) -> None:
    """PNG of the first case of `shard`: X-rays by the last run's simulator, coronal and sagittal slices of all runs."""
    hanging = hang(shard.case(0))
    columns = [_xray_column(shard, runs), ("true CT", _cuts(hanging, hanging.ct_hu))]
    for run in runs:
        try:
            columns.append((run.name, _cuts(hanging, load_run(hanging, run, shard.structures)[0])))
        except VolumeError:
            columns.append((f"{run.name}: not available", []))
    width = GAP + len(columns) * (TILE + GAP)
    poster = Image.new("RGB", (width, HEAD + 2 * (TILE + GAP) + FOOT), PAPER)
    draw, font = ImageDraw.Draw(poster), ImageFont.load_default(15)
    for number, (name, tiles) in enumerate(columns):
        left = GAP + number * (TILE + GAP)
        draw.text((left + 2, 9), name, fill=INK, font=font)
        for row, tile in enumerate(tiles):
            poster.paste(tile, (left, HEAD + row * (TILE + GAP)))
    case = hanging.case
    low, high = pictures.DISPLAY_HU
    foot = f"{case.id} ({case.split}: {SPLITS.get(case.split, 'a split of your own')}); slices {low:g} to {high:g} HU"
    draw.text((GAP + 2, poster.height - FOOT + 6), foot, fill=SOFT, font=font)
    with publish(path) as temporary:
        temporary.write_bytes(pictures.png(poster))


def _xray_column(shard: Shard, runs: Sequence[Run]) -> tuple[str, list[Image.Image]]:
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


def _cuts(hanging: Hanging, ct_hu: Real[ndarray, "x y z"]) -> list[Image.Image]:
    tiles = []
    for plane in PLANES[1:]:
        values = cut(ct_hu, plane, hanging.at)
        image = pictures.grey(values, *pictures.DISPLAY_HU)
        tiles.append(_tile(image, cut_aspect(hanging.affine, plane, values.shape), cut_edges(hanging.affine, plane)))
    return tiles


def _tile(image: Image.Image, aspect: float, edges: Edges) -> Image.Image:
    """The picture in true proportions on a black square, with the patient's sides at its edges."""
    size = (TILE, max(1, round(TILE / aspect))) if aspect >= 1 else (max(1, round(TILE * aspect)), TILE)
    tile = Image.new("RGB", (TILE, TILE))
    tile.paste(image.resize(size, Image.Resampling.BICUBIC), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    draw, font, middle = ImageDraw.Draw(tile), ImageFont.load_default(13), TILE / 2
    for text, xy, anchor in (
        (edges.left, (5, middle), "lm"),
        (edges.right, (TILE - 5, middle), "rm"),
        (edges.top, (middle, 4), "mt"),
        (edges.bottom, (middle, TILE - 4), "mb"),
    ):
        draw.text(xy, text, fill=(240, 200, 90), font=font, anchor=anchor)
    return tile
