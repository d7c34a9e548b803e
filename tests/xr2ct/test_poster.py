"""The one picture of a case: its row of structures, and what their colours mean."""

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw

from tests.phantoms import STRUCTURES, phantom_case, write_phantom_shard
from tests.xr2ct.runs import write_run
from xr2ct import poster
from xr2ct.pictures import LABEL_ALPHA, colour, laid_over
from xr2ct.reconstructions import read_index
from xr2ct.shards import Shard


def tiles_of(path):
    """The tiles by (row, column)."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    rows, columns = (pixels.shape[0] - 68) // 264, (pixels.shape[1] - 8) // 264
    return {
        (row, column): pixels[34 + 264 * row :, 8 + 264 * column :][:256, :256]
        for row in range(rows)
        for column in range(columns)
    }


@pytest.fixture
def said(monkeypatch):
    """What is written into pictures."""
    words, text = [], ImageDraw.ImageDraw.text

    def listen(self, xy, word, *rest, **more):
        words.append((word, xy))
        return text(self, xy, word, *rest, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", listen)
    return words


def make(folder, label=None, status=3, **changes):
    """A poster of one case with this label everywhere (None: the phantom's) and of these runs, name -> label or None."""
    case = phantom_case("a")
    case.label_status[:] = status
    if label is not None:
        case.label[:] = label
    shard = Shard(write_phantom_shard(folder / "a.h5", [case]))
    runs = [
        read_index(
            write_run(folder / name, shard, lambda case, value=value: (case.ct_hu, value and case.label * 0 + value))
        )
        for name, value in changes.items()
    ]
    poster.write_poster(folder / "a.png", shard, runs)
    return tiles_of(folder / "a.png")


@pytest.mark.parametrize(("value", "rows"), [(0, 2), (255, 2), (1, 3)], ids=["none", "ignored", "one"])
def test_a_third_row_where_there_are_structures(value, rows, tmp_path):
    assert max(row for row, _ in make(tmp_path, value)) == rows - 1


def test_every_run_shows_its_own_labels(tmp_path, said):
    tiles = make(tmp_path, 1, of_two=np.uint8(2), silent=None)
    tint = {n: (tiles[2, n] - tiles[0, n]).mean(axis=(0, 1)) for n in (1, 2)}
    for column, value in ((1, 1), (2, 2)):
        true = np.array(ImageColor.getrgb(colour(value))) - tiles[0, column].mean(axis=(0, 1))
        assert np.corrcoef(tint[column], true)[0, 1] > 0.99
    assert (tiles[2, 3] == 255).all()
    assert [word for word, _ in said if word in STRUCTURES] == list(STRUCTURES[1:3])


def test_what_nobody_annotated_is_not_shown_as_absent(tmp_path, said):
    tiles = make(tmp_path, 0, status=0, run=np.uint8(1))
    assert "not annotated" in [word for word, _ in said]
    assert f"{STRUCTURES[1]} (not annotated)" in [word for word, _ in said]
    assert (tiles[2, 1] == 255).mean() > 0.9 and (tiles[2, 2] != 255).mean() > 0.9


@pytest.mark.parametrize("views", [1, 2])
def test_the_legend_stands_in_the_row_of_the_structures(views, tmp_path, monkeypatch):
    column = poster._xray_column
    monkeypatch.setattr(poster, "_xray_column", lambda *given: (column(*given)[0], column(*given)[1][:views]))
    tiles = make(tmp_path, 1)
    assert tuple(tiles[2, 0][8, 8]) == ImageColor.getrgb(colour(1))
    assert (tiles[1, 0] == 255).all() == (views == 1)


@pytest.mark.parametrize(("count", "names", "more"), [(13, 13, []), (14, 12, ["and 2 more"])])
def test_the_legend_says_what_it_has_no_room_for(count, names, more, said):
    legend = poster._legend([(f"structure_{n}", colour(n)) for n in range(1, count + 1)])
    assert [word for word, _ in said if word] == [f"structure {n}" for n in range(1, names + 1)] + more
    heights = [xy[1] for word, xy in said if word]
    assert np.diff(heights).min() >= poster.LINE and heights[-1] < poster.TILE - 8
    for n in range(1, names + 1):
        assert legend.getpixel((8, heights[n - 1])) == ImageColor.getrgb(colour(n))


def test_labels_tint_what_they_lie_over_and_nothing_else():
    grey = Image.fromarray(np.full((1, 3), 100, np.uint8))
    left, middle, right = np.asarray(laid_over(grey, np.array([[0, 255, 3]], np.uint8)))[0].astype(float)
    assert (left == 100).all() and (middle == 100).all()
    share = LABEL_ALPHA / 255
    assert np.abs(right - (100 * (1 - share) + share * np.array(ImageColor.getrgb(colour(3))))).max() <= 1
