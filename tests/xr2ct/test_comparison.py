"""Which runs, columns and differences stand in one table."""

import math

import pytest

from tests.xr2ct.scores import all_metrics, row
from xr2ct.comparison import CEILING, COMPARED, SHOWN, choose_runs, compare, read_title, share, split_notes
from xr2ct.errors import UserError
from xr2ct.summary import summarize


def test_two_windows_in_one_table_are_refused():
    rows = [row("c1", "s1", 1), row("c1", "s1", 1, "psnr_window0to100_range1", model="b")]
    with pytest.raises(UserError, match="Evaluate all runs in one window"):
        compare(summarize(rows))


def line(comparison, model, split="test"):
    (found,) = [line for line in comparison.lines if (line.model, line.split) == (model, split)]
    return found


def judged():
    """A run with two seeds and its ceiling; of case c2 the ceiling lacks the liver."""
    rows = [*all_metrics("c1", "s1", model="mean"), *all_metrics("c2", "s2", model="mean")]
    for seed, gain in ((1, 0.0), (2, 0.2)):
        rows += [row("c1", "s1", 0.4 + gain, "nnunet-dice", "heart", model="b", seed=seed)]
        rows += [row("c2", "s2", 0.2 + gain, "nnunet-dice", "heart", model="b", seed=seed)]
        rows += [row("c2", "s2", 0.9 + gain, "nnunet-dice", "liver", model="b", seed=seed)]
    best = [("c1", "s1", 0.9, "heart"), ("c2", "s2", 0.7, "heart"), ("c2", "s2", "nan", "liver")]
    ceiling = [row(c, s, v, "nnunet-dice", n, model=CEILING, simulator="") for c, s, v, n in best]
    return ceiling + rows


def test_the_share_of_the_ceiling_is_on_what_both_have():
    found = compare(summarize(judged()))
    share_of_b = line(found, "b").shares["nnunet-dice"]
    assert share_of_b == pytest.approx((0.5 + 0.3) / (0.9 + 0.7))
    assert line(found, CEILING).shares["nnunet-dice"] == 1 and "nnunet-dice" not in line(found, "mean").shares


def test_nothing_in_common_with_the_ceiling_is_no_share():
    run, ceiling = (summarize([row(c, "s", 0.5, "nnunet-dice", "heart")])[0] for c in ("c1", "c2"))
    assert math.isnan(share(run, ceiling))


def test_the_true_cts_stand_last_and_nothing_is_compared_with_them():
    found = compare(summarize(judged()))
    assert [line.model for line in found.lines] == ["mean", "b", CEILING, "b - mean"]
    only_them = compare(summarize(judged()[:3]))
    assert [line.model for line in only_them.lines] == [CEILING]


def test_judged_and_regional_columns_are_there_when_something_is():
    plain = summarize(all_metrics("c1", "s1"))
    assert list(compare(plain).columns) == list(SHOWN)
    assert list(compare(plain, columns=COMPARED).columns) == ["psnr", "ssim3d", "dice"]
    assert list(compare(summarize(judged())).columns) == [*SHOWN, "nnunet-dice"]
    other = summarize([row("c", "s", 0.5, "totalsegmentator-fast-dice", "heart")])
    assert compare(other).columns["totalsegmentator-fast-dice"].heading == "TotalSegmentator fast Dice"
    inside = summarize([*all_metrics("c1", "s1"), row("c1", "s1", 20, "psnr-inside_window-1000to1500_range1")])
    assert list(compare(inside).columns) == list(SHOWN)
    assert list(compare(inside, columns=COMPARED).columns) == ["psnr", "psnr-inside", "ssim3d", "dice"]


def test_deformations_are_said_to_be_of_one_patient():
    rows = [
        *all_metrics("c1", "s1"),
        *all_metrics("f1", "s1", split="family"),
        *all_metrics("f2", "s1", split="family"),
    ]
    note = "one patient's anatomy: intervals over deformations, not patients"
    assert split_notes(compare(summarize(rows)).lines) == {"family": note}
    two = compare(summarize([*rows, *all_metrics("f3", "s2", split="family")])).lines
    assert split_notes(two)["family"].startswith("the anatomy of 2 patients: ")


def test_a_table_has_its_runs_in_the_order_asked_for():
    rows = [row("c", "s", i, split=split, model=m) for split in ("family", "test") for i, m in enumerate("abcd")]
    rows += [row("c", "s", 0.5, "nnunet-dice", "heart", model=CEILING, simulator="")]
    found = compare(choose_runs(summarize(rows), "T", ["c", "a"]), title="T")
    expected = [("test", "c"), ("test", "a"), ("test", CEILING), ("test", "a - c")]
    expected += [("family", "c"), ("family", "a"), ("family", "a - c")]
    assert [(line.split, line.model) for line in found.lines] == expected and found.title == "T"
    assert line(found, "a - c").found["psnr"].mean == -2


def test_a_run_that_was_not_evaluated_is_named():
    summaries = summarize([row("c", "s", 1, model=m) for m in "ab"])
    with pytest.raises(UserError, match=r"table 'T' names run 'x', expected runs of the evaluations: a, b. Give its"):
        choose_runs(summaries, "T", ["a", "x"])


def test_titles_of_tables():
    assert read_title("Fig. 4: a = b=run,  other ") == ("Fig. 4: a = b", ("run", "other"))
    for text in ("title", "=a,b", "T=", "T=a,,b"):
        with pytest.raises(UserError, match='expected "TITLE=run,run"'):
            read_title(text)
    with pytest.raises(UserError, match="table 'T' names a run twice"):
        read_title("T=a,b,a")
