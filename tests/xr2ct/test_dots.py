"""Dot charts: every mark at its place, by hand."""

import pytest

from tests.xr2ct.scores import PSNR, all_metrics, row
from xr2ct.comparison import CEILING, COMPARED, compare
from xr2ct.dots import ROW, WIDTH, draw_panels, round_values
from xr2ct.summary import summarize


def panels(rows, split="test"):
    return {panel.title: panel for panel in draw_panels(compare(summarize(rows), columns=COMPARED), split)}


def test_marks_lie_where_their_numbers_are():
    rows = [row("c", "s", value, model=m, seed=s) for m, s, value in (("low", "", 10), ("b", 1, 18), ("b", 2, 20))]
    panel = panels(rows)["PSNR dB"]
    low, b = panel.dots
    assert (low.run, low.text, b.run, b.text) == ("low", "10.00", "b", "19.00")
    assert (low.y, b.y, panel.height) == (0.5 * ROW, 1.5 * ROW, 2 * ROW)
    per_db = WIDTH / (10 * 1.12)  # 10 to 20 dB and a margin of 6 % on both sides
    assert [low.mean, b.mean] == pytest.approx([0.6 * per_db, 9.6 * per_db])
    assert low.seeds == [] and b.seeds == pytest.approx([8.6 * per_db, 10.6 * per_db])
    assert low.interval is None and panel.ceiling is None
    assert [tick.text for tick in panel.ticks] == ["10", "15", "20"]
    assert [tick.at for tick in panel.ticks] == pytest.approx([0.6 * per_db, 5.6 * per_db, 10.6 * per_db])


def test_intervals_and_the_ceiling():
    rows = [row(f"c{i}", f"s{i}", 0.1 * i, "nnunet-dice", "heart") for i in range(5)]
    rows += [row(f"c{i}", f"s{i}", 0.9, "nnunet-dice", "heart", model=CEILING, simulator="") for i in range(5)]
    panel = panels(rows)["nnU-Net Dice"]
    (dot,) = panel.dots
    assert dot.interval[0] < dot.mean < dot.interval[1] < panel.ceiling < WIDTH
    (summary, *_) = summarize(rows)
    share = (dot.interval[1] - dot.interval[0]) / (panel.ceiling - dot.mean)
    assert share == pytest.approx((summary.high95 - summary.low95) / (0.9 - 0.2))


def test_one_panel_per_column_of_the_table_and_split():
    rows = all_metrics("c", "s") + [
        row("c", "s", 20, f"psnr-{r}_window-1000to1500_range1") for r in ("inside", "outside")
    ]
    assert list(panels(rows)) == ["PSNR dB", "PSNR inside dB", "PSNR outside dB", "SSIM", "Dice"]
    assert list(panels(rows, "family")) == []


def test_what_has_no_finite_mean_has_no_dot():
    rows = [row("c", "s", 20), row("c", "s", "inf", model="b"), row("c", "s", "nan", model="d", reason="lost")]
    assert [dot.run for dot in panels(rows)["PSNR dB"].dots] == ["a"]
    assert panels([row("c", "s", "inf", PSNR)]) == {}


def test_a_long_name_is_cut_and_names_have_room():
    short = panels([row("c", "s", 1)])["PSNR dB"]
    long = panels([row("c", "s", 1), row("c", "s", 1, model="x" * 60)])["PSNR dB"]
    assert len(long.dots[1].run) == 24 and long.gutter > 100 > short.gutter


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (9.4, 20.6, [("10", 10), ("15", 15), ("20", 20)]),
        (0.71, 0.79, [("0.72", 0.72), ("0.74", 0.74), ("0.76", 0.76), ("0.78", 0.78)]),
        (-1.0, 3.0, [("0", 0), ("2", 2)]),
        (28.1, 28.9, [("28.2", 28.2), ("28.4", 28.4), ("28.6", 28.6), ("28.8", 28.8)]),  # 0.5 gives one mark only
    ],
)
def test_round_values(low, high, expected):
    found = round_values(low, high)
    assert [f"{value:.{digits}f}" for value, digits in found] == [text for text, _ in expected]
    assert [value for value, _ in found] == pytest.approx([value for _, value in expected])
