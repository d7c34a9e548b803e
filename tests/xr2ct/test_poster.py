"""The one picture of a case: its row of structures, and what their colours mean."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.phantoms import phantom_case, write_phantom_shard
from xr2ct import poster
from xr2ct.pictures import colour
from xr2ct.shards import Shard


@pytest.mark.parametrize(("value", "rows"), [(0, 2), (255, 2), (1, 3)], ids=["none", "ignored", "one"])
def test_a_third_row_where_there_are_structures(value, rows, tmp_path):
    case = phantom_case("a")
    case.label[:] = value
    poster.write_poster(tmp_path / "a.png", Shard(write_phantom_shard(tmp_path / "a.h5", [case])), [])
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (8 + 2 * 264, 34 + rows * 264 + 34)


@pytest.mark.parametrize(("count", "more"), [(13, []), (15, ["and 2 more"])])
def test_the_legend_says_what_it_has_no_room_for(count, more, monkeypatch):
    said = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, xy, text, **rest: said.append(text))
    tile = np.asarray(poster._legend({f"structure_{n}": colour(n) for n in range(1, count + 1)}))
    assert said == [f"structure {n}" for n in range(1, 14)] + more
    assert tuple(tile[9, 8]) != tuple(tile[9 + 19, 8])
