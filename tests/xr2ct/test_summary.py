"""Means, intervals over patients and the printed table, by hand arithmetic."""

import math

import numpy as np
import pytest

from xr2ct.errors import UserError
from xr2ct.evaluate import COLUMNS as SCORE_COLUMNS
from xr2ct.summary import (
    ALL_STRUCTURES,
    COLUMNS,
    bootstrap_interval,
    format_table,
    read_scores,
    summarize,
    table,
    write_summary,
)
from xr2ct.tables import read_csv, write_csv

PSNR = "psnr_window-1000to1500_range1"


def row(case, subject, value, metric=PSNR, structure="", split="test", model="a", reason=""):
    return {
        "case": case,
        "subject": subject,
        "split": split,
        "simulator": "parallel",
        "model": model,
        "metric": metric,
        "structure": structure,
        "value": str(value),
        "unit": "dB" if metric == PSNR else "1",
        "reason": reason,
    }


def only(rows, **wanted):
    (found,) = [s for s in summarize(rows) if all(getattr(s, name) == value for name, value in wanted.items())]
    return found


def test_mean_sd_and_counts_by_hand():
    found = only([row("c1", "s1", 10), row("c2", "s1", 14), row("c3", "s2", 21)], metric=PSNR)
    assert (found.mean, found.n_cases, found.n_patients, found.n_missing) == (15, 3, 2, 0)
    assert found.sd == pytest.approx(math.sqrt((25 + 1 + 36) / 2))
    assert found.low95 <= found.mean <= found.high95 and found.reason == ""


def test_the_interval_draws_patients_not_cases():
    # Two patients, three cases each; within a patient nothing varies. Drawing two patients gives 0, 5 or 10.
    values, subjects = np.array([0.0, 0, 0, 10, 10, 10]), ["s1"] * 3 + ["s2"] * 3
    low, high = bootstrap_interval(values, subjects)
    assert low == 0 and high == 10
    low, high = bootstrap_interval(values, [f"s{i}" for i in range(6)])
    assert low > 0 and high < 10


def test_patients_count_with_all_their_cases():
    # 20 patients with one case of 0 and 20 with nine cases of 10: the mean over cases is 9, that over patients 5.
    values = np.array([0.0] * 20 + [10.0] * 180)
    subjects = [f"a{i}" for i in range(20)] + [f"b{i // 9}" for i in range(180)]
    low, high = bootstrap_interval(values, subjects)
    assert 7 < low < 9 < high < 10


def test_the_interval_is_seeded_and_ignores_the_order():
    random = np.random.default_rng(5)
    values, subjects = random.normal(size=20), [f"s{i % 7}" for i in range(20)]
    interval = bootstrap_interval(values, subjects)
    assert interval == bootstrap_interval(values, subjects)
    order = random.permutation(20)
    assert interval == pytest.approx(bootstrap_interval(values[order], [subjects[i] for i in order]))


def test_the_interval_has_the_width_of_the_normal_theory():
    values = np.random.default_rng(0).normal(size=200)
    low, high = bootstrap_interval(values, [str(i) for i in range(200)])
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(200), rel=0.1)


def test_one_patient_has_no_interval():
    found = only([row("c1", "s1", 1), row("c2", "s1", 3)], metric=PSNR)
    assert (found.mean, found.sd) == (2, pytest.approx(math.sqrt(2)))
    assert math.isnan(found.low95) and math.isnan(found.high95) and found.reason == "one patient"


def test_one_case_has_no_sd():
    found = only([row("c1", "s1", 1)], metric=PSNR)
    assert math.isnan(found.sd) and found.reason == "one patient"


def test_structures_are_averaged_per_case_first():
    rows = [
        row("c1", "s1", 0.2, "dice", "heart"),
        row("c1", "s1", 0.4, "dice", "liver"),
        row("c2", "s2", 0.9, "dice", "heart"),  # this case shows one structure only
    ]
    assert only(rows, structure="heart").mean == pytest.approx(0.55)
    assert only(rows, structure=ALL_STRUCTURES).mean == pytest.approx((0.3 + 0.9) / 2)
    assert only(rows, structure=ALL_STRUCTURES).n_cases == 2


def test_missing_values_are_counted_not_hidden():
    rows = [row("c1", "s1", 5), row("c2", "s2", "nan", reason="file is missing")]
    found = only(rows, metric=PSNR)
    assert (found.mean, found.n_cases, found.n_patients, found.n_missing) == (5, 1, 1, 1)
    nothing = only([row("c1", "s1", "nan", reason="b"), row("c2", "s1", "nan", reason="a")], metric=PSNR)
    assert math.isnan(nothing.mean) and nothing.n_cases == 0 and nothing.n_missing == 2
    assert nothing.reason == "no value: a; b"


def test_a_perfect_case_makes_the_mean_infinite_not_an_error():
    found = only([row("c1", "s1", "inf"), row("c2", "s2", 5)], metric=PSNR)
    assert found.mean == math.inf and math.isnan(found.sd) and found.reason == "a value is infinite"


def test_splits_are_in_their_order_and_runs_as_given():
    rows = [row("c", "s", 1, split=split, model=model) for split in ("family", "own", "test") for model in ("z", "b")]
    assert [(s.split, s.model) for s in summarize(rows)] == [
        ("test", "z"),
        ("test", "b"),
        ("family", "z"),
        ("family", "b"),
        ("own", "z"),
        ("own", "b"),
    ]


def all_metrics(case, subject, **changes):
    values = {PSNR: 20.123, "ssim3d_gauss11_sigma1.5_window-1000to1500_range1": 0.5, "mae_window-1000to1500": 99.96}
    rows = [row(case, subject, value, metric, **changes) for metric, value in values.items()]
    return [
        *rows,
        row(case, subject, 0.25, "dice", "heart", **changes),
        row(case, subject, 7, "hd95", "heart", **changes),
    ]


def test_the_printed_table_is_aligned_and_explains_the_splits():
    rows = all_metrics("c1", "s1") + all_metrics("c2", "s2") + all_metrics("c3", "s1", split="family", model="longer")
    text = format_table(table(summarize(rows))).splitlines()
    assert text[0].split("  ")[0] == "split" and text[0].endswith("cases / patients")
    assert text[1].split() == ["test", "parallel", "a", "20.12", "0.500", "100.0", "0.250", "7.0", "2", "/", "2"]
    assert text[2].split() == ["family", "parallel", "longer", "20.12", "0.500", "100.0", "0.250", "7.0", "1", "/", "1"]
    assert len({len(line) for line in text[:3]}) == 1
    assert "test: unseen real patients" in text
    assert "family: same patient, new deformation: shows that the machinery works, not that it generalises" in text


def test_a_number_on_fewer_cases_says_so_in_the_table():
    rows = [*all_metrics("c1", "s1"), row("c2", "s2", 20)]
    line = format_table(table(summarize(rows))).splitlines()[1]
    assert "0.250 (1 case)" in line and line.endswith("2 / 2")


def test_two_windows_in_one_table_are_refused():
    rows = [row("c1", "s1", 1), row("c1", "s1", 1, "psnr_window0to100_range1", model="b")]
    with pytest.raises(UserError, match="Evaluate all runs in one window"):
        table(summarize(rows))


def test_files_of_scores_and_summaries(tmp_path):
    scores = tmp_path / "scores.csv"
    write_csv(scores, SCORE_COLUMNS, [row("c1", "s1", 1.25), row("c2", "s2", "nan", reason="lost, sadly")])
    rows = read_scores([scores])
    assert rows[1]["reason"] == "lost, sadly"
    write_summary(tmp_path / "summary.csv", summarize(rows))
    (line,) = read_csv(tmp_path / "summary.csv", COLUMNS)
    assert (line["mean"], line["n_missing"], line["low95"], line["reason"]) == ("1.25", "1", "nan", "one patient")
    with pytest.raises(UserError, match=r"summary.csv: columns are .*expected case, subject"):
        read_scores([tmp_path / "summary.csv"])
    with pytest.raises(UserError, match=r"absent.csv: cannot be read"):
        read_scores([tmp_path / "absent.csv"])
