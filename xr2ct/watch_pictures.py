"""A look at one watched case during training: its true CT above the prediction, in three planes."""

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from xr2ct.cases import Example
from xr2ct.models.model import Prediction
from xr2ct.pictures import DISPLAY_HU, grey, laid_over
from xr2ct.planes import PLANES, Edges, cut, cut_edges, interesting_voxel, to_ras

LONGEST_PX = 256  # of the volume's longest side
MARGIN_PX = 16  # around every slice, for the letters of its edges
INK = "#d0d0d0"


def watch_picture(example: Example, prediction: Prediction) -> Image.Image:
    """Axial, coronal, sagittal (columns) of the true and of the predicted CT (rows), labels laid over in colour."""
    case = example.case
    true_hu, affine = to_ras(case.ct_hu, case.affine)
    true_label, _ = to_ras(case.label, case.affine)
    at = interesting_voxel(true_hu, true_label)
    predicted = [None if array is None else to_ras(array, case.affine)[0] for array in vars(prediction).values()]
    extent_mm = np.linalg.norm(affine[:3, :3], axis=0) * true_hu.shape
    px_per_mm = LONGEST_PX / extent_mm.max()

    rows = []
    for name, (ct_hu, label) in {"true": (true_hu, true_label), "predicted": predicted}.items():
        cells = []
        for plane in PLANES:
            width, height = (max(1, round(extent_mm[axis] * px_per_mm)) for axis in (plane.columns, plane.rows))
            over = None if label is None else cut(label, plane, at)
            picture = slice_picture(cut(ct_hu, plane, at), over, (width, height))
            cells.append(framed(picture, cut_edges(affine, plane), f"{name}, {plane.name}"))
        rows.append(beside(cells))
    return above(rows)


def slice_picture(
    ct_hu: Shaped[ndarray, "rows columns"], label: Shaped[ndarray, "rows columns"] | None, size: tuple[int, int]
) -> Image.Image:
    """One slice at `size` (width, height), in the HU range in which reports show it."""
    image = grey(ct_hu, *DISPLAY_HU).resize(size, Image.Resampling.BILINEAR)
    return image.convert("RGB") if label is None else laid_over(image, label)


def framed(picture: Image.Image, edges: Edges, caption: str) -> Image.Image:
    """The slice with a letter at each edge and its caption below."""
    width, height = picture.size
    frame = Image.new("RGB", (width + 2 * MARGIN_PX, height + 3 * MARGIN_PX))
    frame.paste(picture, (MARGIN_PX, MARGIN_PX))
    draw, font, middle = ImageDraw.Draw(frame), ImageFont.load_default(), MARGIN_PX // 2
    centre, right, bottom = (MARGIN_PX + width // 2, MARGIN_PX + height // 2), width + 3 * middle, height + 3 * middle
    for x, y, text in (
        (middle, centre[1], edges.left),
        (right, centre[1], edges.right),
        (centre[0], middle, edges.top),
        (centre[0], bottom, edges.bottom),
        (centre[0], bottom + MARGIN_PX, caption),
    ):
        draw.text((x, y), text, fill=INK, font=font, anchor="mm")
    return frame


def beside(pictures: list[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (sum(p.width for p in pictures), max(p.height for p in pictures)))
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (sum(p.width for p in pictures[:number]), 0))
    return sheet


def above(pictures: list[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)))
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (0, sum(p.height for p in pictures[:number])))
    return sheet
