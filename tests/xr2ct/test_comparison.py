"""Which runs, columns and differences stand in one table."""

import math
from pathlib import Path

import pytest
import yaml

from tests.xr2ct.scores import all_metrics, row
from xr2ct.comparison import (
    BASELINES,
    CEILING,
    COMPARED,
    FOUND,
    SHOWN,
    choose_runs,
    compare,
    legacy_rows,
    parts,
    read_title,
    share,
    split_notes,
)
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


def test_distances_have_no_share_of_the_ceiling_because_less_is_better():
    rows = [row("c1", "s1", 9, "nnunet-hd95", "heart"), row("c1", "s1", 0.5, "nnunet-dice", "heart")]
    rows += [one | {"model": CEILING, "simulator": ""} for one in rows]
    found = compare(summarize(rows))
    assert line(found, "a").shares == line(found, CEILING).shares == {"nnunet-dice": 1}


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
    distances = [row("c1", "s1", 3, f"nnunet-{metric}", "heart") for metric in ("hd95", "chamfer")]
    for columns in (SHOWN, COMPARED):
        found = compare(summarize([*judged(), *distances]), columns=columns).columns
        assert list(found)[-3:] == ["nnunet-dice", "nnunet-hd95", "nnunet-chamfer"]
        headings = [(column.heading, column.judged) for column in list(found.values())[-3:]]
        assert headings == [("nnU-Net Dice", True), ("nnU-Net HD95 mm", True), ("nnU-Net Chamfer mm", True)]
    other = summarize([row("c", "s", 0.5, "totalsegmentator-fast-dice", "heart")])
    assert compare(other).columns["totalsegmentator-fast-dice"].heading == "TotalSegmentator fast Dice"
    inside = summarize([*all_metrics("c1", "s1"), row("c1", "s1", 20, "psnr-inside_window-1000to1500_range1")])
    assert list(compare(inside).columns) == list(SHOWN)
    assert list(compare(inside, columns=COMPARED).columns) == ["psnr", "psnr-inside", "ssim3d", "dice"]


def test_what_segmenters_find_is_a_part_of_its_own_with_the_runs_they_judged():
    rows = [*judged(), *all_metrics("c1", "s1", model="b", seed=1)]
    own, found = parts(compare(summarize(rows), title="T"))
    assert (own.title, list(own.columns)) == ("", list(SHOWN))
    assert (found.title, list(found.columns)) == (FOUND, ["nnunet-dice"])
    assert [line.model for line in own.lines] == ["mean", "b", "b - mean"]
    assert [line.model for line in found.lines] == ["b", CEILING]
    assert [part.title for part in parts(compare(summarize(all_metrics("c1", "s1"))))] == [""]


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


def test_baselines_stand_in_every_table_once():
    rows = [row("c", "s", i, model=m) for i, m in enumerate(["mean", "other", "nearest", "default"])]
    rows += [row("c", "s", 0.5, "nnunet-dice", "heart", model=CEILING, simulator="")]

    def models(*runs):
        found = compare(choose_runs(summarize(rows), "T", runs, ["mean", "nearest", "not evaluated"]))
        return [line.model for line in found.lines if not line.paired]

    assert models("default") == ["default", "mean", "nearest", CEILING]
    assert models("nearest", "default") == ["nearest", "default", "mean", CEILING]


@pytest.mark.parametrize("name", ["config.yaml", *(f"resources/configs/bench_pelvis_{n}.yaml" for n in (64, 128))])
def test_what_comes_with_us_runs_every_baseline(name):
    config = yaml.safe_load((Path(__file__).parents[2] / name).read_text())
    assert {run["model"] for run in config["runs"].values()} >= set(BASELINES)


def test_a_run_that_was_not_evaluated_is_named():
    summaries = summarize([row("c", "s", 1, model=m) for m in "ab"])
    with pytest.raises(UserError, match=r"table 'T' names run 'x', expected runs of the evaluations: a, b. Give its"):
        choose_runs(summaries, "T", ["a", "x"])


def test_metrics_of_other_papers_are_shown_over_the_structures_with_the_digits_of_their_unit():
    rows = [row("c", "s", value, "chamfer_sum", name) | {"unit": "mm"} for name, value in (("heart", 2), ("liver", 4))]
    rows += [row("c", "s", 20, "psnr_x2ct4095") | {"unit": "dB"}, row("c", "s", 0.5, "ssim_skimage2")]
    shown = [(summary.metric, summary.mean, digits) for summary, digits in legacy_rows(summarize(rows))]
    assert shown == [("chamfer_sum", 3, 2), ("psnr_x2ct4095", 20, 2), ("ssim_skimage2", 0.5, 3)]


def test_titles_of_tables():
    assert read_title("Fig. 4: a = b=run,  other ") == ("Fig. 4: a = b", ("run", "other"))
    for text in ("title", "=a,b", "T=", "T=a,,b"):
        with pytest.raises(UserError, match='expected "TITLE=run,run"'):
            read_title(text)
    with pytest.raises(UserError, match="table 'T' names a run twice"):
        read_title("T=a,b,a")
