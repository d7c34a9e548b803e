"""The contact sheet: every picture in its place, captions beside it."""

import numpy as np
import pytest
from PIL import Image

from pipeline.__main__ import main
from pipeline.radiographs import KINDS, sheet, windowed
from tests.cohorts import write_ct


def test_pictures_lie_in_the_grid_row_by_row_with_captions():
    rows = {
        (view, kind): [np.full((40, 50), 10 * row + column, np.uint8) for column in (1, 2)]
        for row, (view, kind) in enumerate([("PA", "one"), ("PA", "two"), ("LAT", "one")])
    }
    page = sheet(rows, ["60 kV", "90 kV"])
    assert page.shape == (30 + 3 * 46, 150 + 2 * 56)
    for row in range(3):
        for column in (0, 1):
            place = page[30 + 46 * row : 70 + 46 * row, 150 + 56 * column : 200 + 56 * column]
            assert (place == 10 * row + column + 1).all()
        assert (page[30 + 46 * row : 70 + 46 * row, :150] < 100).any(), "no caption beside the row"
    for column in (0, 1):
        assert (page[:30, 150 + 56 * column : 200 + 56 * column] < 100).any(), "no caption above the column"


def test_pictures_of_one_row_share_a_window_that_is_told():
    """Air 0, anatomy 1 to 2 and 1 to 1.5: 1 is black, 2 white, 1.5 half way in both."""
    images = [np.repeat([[0.0], [1.0], [high]], 4, axis=1) for high in (2.0, 1.5)]
    captions, shown = windowed(("PA", "realistic"), images)
    assert captions == ("PA", "realistic", "1.00 to 2.00")
    assert [picture[:, 0].tolist() for picture in shown] == [[0, 0, 255], [0, 0, 128]]


def test_a_lone_ct_gets_its_sheet(tmp_path, capsys):
    write_ct(tmp_path, "ct")
    out = tmp_path / "sheet.png"
    arguments = ["--volume", tmp_path / "ct.nii.gz", "--kvp", "60", "120", "--size-px", "32", "--out", out]
    assert main(["radiographs", *map(str, arguments)]) == 0
    page = np.asarray(Image.open(out))
    assert page.shape == (30 + 2 * len(KINDS) * 38, 150 + 2 * 38)
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == f"radiographs: {out}" and "simulating realistic + scatter at 120 kV" in said.err
    pictures = [page[30 + 38 * row :, 150 + 38 * column :][:32, :32] for row in range(6) for column in (0, 1)]
    assert all(picture.max() > 100 > picture.min() for picture in pictures)
    low, high = pictures[0].mean(), pictures[1].mean()
    assert low > high, "60 kV is absorbed more than 120 kV: brighter in a shared window"
    assert len({picture.tobytes() for picture in pictures}) == 12


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--kvp", "75"], "kvp 75 without filter_mm_al"),
        (["--views", "XX"], "view 'XX' is not known"),
        (["--size-px", "0"], "detector_px is (0, 0); expected two whole numbers"),
    ],
)
def test_mistakes_end_in_words(tmp_path, capsys, options, words):
    write_ct(tmp_path, "ct")
    common = ["--volume", str(tmp_path / "ct.nii.gz"), "--out", str(tmp_path / "s.png")]
    assert main(["radiographs", *common, *options]) == 2
    assert words in capsys.readouterr().err
