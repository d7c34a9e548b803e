"""Means, seeds, intervals over patients and paired differences, by hand arithmetic."""

import itertools
import math

import numpy as np
import pytest

from tests.xr2ct.scores import PSNR, row
from xr2ct.errors import UserError
from xr2ct.evaluate import COLUMNS as SCORE_COLUMNS
from xr2ct.metrics.interval import FEWEST_PATIENTS, RESAMPLES, bootstrap_interval
from xr2ct.summary import (
    ALL_STRUCTURES,
    COLUMNS,
    DIFFERENCE_COLUMNS,
    differences,
    mean_over_cases,
    read_scores,
    summarize,
    write_legacy,
    write_summary,
)
from xr2ct.tables import read_csv, write_csv


def only(rows, **wanted):
    (found,) = [s for s in summarize(rows) if all(getattr(s, name) == value for name, value in wanted.items())]
    return found


def test_mean_sd_and_counts_by_hand():
    found = only([row("c1", "s1", 10), row("c2", "s1", 14), row("c3", "s2", 21)], metric=PSNR)
    assert (found.mean, found.n_cases, found.n_patients, found.n_missing) == (15, 3, 2, 0)
    assert found.n_structures == 0
    assert found.sd == pytest.approx(math.sqrt((25 + 1 + 36) / 2))
    assert math.isnan(found.low95) and found.reason == "2 patients, no interval"


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


@pytest.mark.parametrize("n_patients", [1, 2, 3])
def test_few_patients_have_no_interval(n_patients):
    found = only([row(f"c{i}", f"s{i % n_patients}", 2 * i) for i in range(6)], metric=PSNR)
    assert (found.mean, found.sd, found.n_patients) == (5, pytest.approx(math.sqrt(14)), n_patients)
    assert math.isnan(found.low95) and math.isnan(found.high95)
    assert found.reason == ("1 patient, no interval" if n_patients == 1 else f"{n_patients} patients, no interval")


def test_four_patients_have_an_interval_that_is_not_the_range():
    found = only([row(f"c{i}", f"s{i}", 10 * i) for i in range(4)], metric=PSNR)
    assert 0 < found.low95 < found.mean == 15 < found.high95 < 30 and found.reason == ""
    assert bootstrap_interval(np.array([0.0, 10, 20]), ["a", "b", "c"]) == (0, 20)  # three would give their range
    assert (FEWEST_PATIENTS - 1) ** -(FEWEST_PATIENTS - 1) > 0.025 > FEWEST_PATIENTS**-FEWEST_PATIENTS


def test_the_interval_is_that_of_all_draws_enumerated():
    values = [3.0, 1.0, 4.0, 15.0]
    means = sorted(sum(draw) / 4 for draw in itertools.product(values, repeat=4))
    low, high = bootstrap_interval(np.array(values), list("abcd"))
    assert RESAMPLES >= 1000
    assert means[round(256 * 0.010)] <= low <= means[round(256 * 0.045)]
    assert means[round(256 * 0.955)] <= high <= means[round(256 * 0.990)]


def test_one_case_has_no_sd():
    found = only([row("c1", "s1", 1)], metric=PSNR)
    assert math.isnan(found.sd) and found.reason == "1 patient, no interval"


def test_the_same_value_twice_is_refused():
    with pytest.raises(UserError, match=r"run 'a' has psnr_.* of case 'c1' twice, expected once. Give the CSV"):
        summarize([row("c1", "s1", 1), row("c1", "s1", 2)])
    with pytest.raises(UserError, match=r"of case 'c1' twice"):
        summarize([row("c1", "s1", 1, seed=4), row("c1", "s1", 2, seed=4)])


def test_a_case_is_averaged_over_its_seeds_first():
    rows = [row("c1", "s1", 10, seed=1), row("c1", "s1", 14, seed=2)]
    rows += [row("c2", "s2", 20, seed=1), row("c2", "s2", 32, seed=2)]
    found = only(rows, metric=PSNR)
    assert (found.mean, found.n_cases, found.n_patients, found.n_seeds) == (19, 2, 2, 2)
    assert found.sd == pytest.approx(math.sqrt(2 * 7**2))  # of the cases 12 and 26
    assert found.seed_means == {"1": 15, "2": 23} and found.seed_sd == pytest.approx(math.sqrt(2 * 4**2))
    assert only(rows[::2], metric=PSNR).n_seeds == 1 and math.isnan(only(rows[::2], metric=PSNR).seed_sd)


def test_a_seed_that_lacks_a_case_gives_the_other_cases_no_weight():
    rows = [row("c1", "s1", 10, seed=1), row("c1", "s1", 14, seed=2), row("c1", "s1", 12, seed=3)]
    rows += [row("c2", "s2", 20, seed=1), row("c2", "s2", "nan", seed=2, reason="lost")]
    found = only(rows, metric=PSNR)
    assert (found.mean, found.n_missing, found.n_seeds) == (16, 1, 3)  # not (10 + 14 + 12 + 20) / 4


def test_structures_are_averaged_within_a_seed_then_over_seeds():
    rows = [row("c1", "s1", 0.2, "dice", "heart", seed=1), row("c1", "s1", 0.4, "dice", "liver", seed=1)]
    rows += [row("c1", "s1", 0.9, "dice", "heart", seed=2), row("c1", "s1", "nan", "dice", "liver", seed=2)]
    found = only(rows, structure=ALL_STRUCTURES)
    assert found.mean == pytest.approx((0.3 + 0.9) / 2) and found.n_structures == 2
    assert mean_over_cases(found.values) == found.mean and math.isnan(mean_over_cases({}))


@pytest.mark.parametrize("split", ["family", "family_transfer", "family_validation"])
def test_intervals_of_deformations_are_over_cases(split):
    values = [1.0, 2, 4, 8, 16, 32]
    rows = [row(f"c{i}", "s", value, split=split) for i, value in enumerate(values)]
    found = only(rows, metric=PSNR)
    expected = bootstrap_interval(np.array(values), [f"s c{i}" for i in range(6)])
    assert (found.low95, found.high95, found.reason, found.n_patients) == (*expected, "", 1)
    assert only(rows[:3], metric=PSNR).reason == "3 cases, no interval"
    assert only(rows[:1], metric=PSNR).reason == "1 case, no interval"
    assert only([each | {"split": "train"} for each in rows], metric=PSNR).reason == "1 patient, no interval"


def paired(rows, **wanted):
    (found,) = [d for d in differences(summarize(rows)) if all(getattr(d, k) == v for k, v in wanted.items())]
    return found


def test_a_difference_is_of_the_cases_that_both_runs_have():
    rows = [row(f"c{i}", f"s{i}", value) for i, value in enumerate([10, 20, 30, 40, 99])]
    rows += [row(f"c{i}", f"s{i}", value, model="b") for i, value in enumerate([11, 22, 31, 44, "nan"])]
    rows += [row("c9", "s9", 7, model="b"), row("c8", "s8", 7)]
    found = paired(rows)
    assert (found.model, found.minus_model) == ("b", "a")
    assert (found.mean, found.n_cases, found.n_patients, found.n_missing) == (2, 4, 4, 3)
    assert found.sd == pytest.approx(math.sqrt((1 + 0 + 1 + 4) / 3))
    assert 1 <= found.low95 < 2 < found.high95 <= 4  # far narrower than either run's own interval
    own = only(rows, model="b")
    assert found.high95 - found.low95 < 0.25 * (own.high95 - own.low95)


def test_a_constant_gain_has_an_interval_of_no_width():
    rows = [row(f"c{i}", f"s{i}", 5 * i + gain, model=m) for m, gain in (("a", 0), ("b", 1.5)) for i in range(6)]
    found = paired(rows)
    assert found.mean == found.low95 == found.high95 == 1.5


def test_a_difference_of_dice_is_over_the_structures_that_both_know():
    rows = [row("c1", "s1", 0.9, "dice", "heart"), row("c1", "s1", 0.1, "dice", "liver")]
    rows += [row("c1", "s1", 0.8, "dice", "heart", model="b"), row("c1", "s1", "nan", "dice", "liver", model="b")]
    found = paired(rows, structure=ALL_STRUCTURES)
    assert found.mean == pytest.approx(-0.1)  # not 0.8 - 0.5
    assert (found.n_structures, found.n_missing) == (1, 1)
    assert paired(rows, structure="liver").reason == "no value: no number in both runs"


def test_differences_stay_within_split_and_metric_and_cover_all_pairs():
    rows = [row("c", "s", 1, split=split, model=model) for split in ("test", "family") for model in ("a", "b", "c")]
    rows += [row("c", "s", 1, "dice", "heart", model="a")]
    found = [(d.split, d.minus_model, d.model) for d in differences(summarize(rows))]
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    assert found == [(split, *pair) for split in ("test", "family") for pair in pairs]


def seeded(model, by_seed):
    return [
        row(f"c{i}", f"s{i}", v, model=model, seed=s) for s, values in by_seed.items() for i, v in enumerate(values)
    ]


def test_differences_pair_equal_seeds():
    rows = seeded("a", {1: [10, 20], 2: [14, 30]}) + seeded("b", {2: [15, 31], 1: [11, 21]})
    found = paired(rows)
    assert (found.mean, found.seed_sd, found.n_seeds, found.n_cases, found.sd) == (1, 0, 2, 2, 0)


def test_a_run_without_seeds_is_set_against_every_seed():
    rows = seeded("mean", {"": [10, 20]}) + seeded("b", {1: [11, 21], 2: [14, 24]})
    found = paired(rows)
    assert (found.mean, found.n_seeds, found.n_missing) == (2.5, 2, 0)
    assert found.seed_sd == pytest.approx(math.sqrt(2 * 1.5**2))
    assert paired(rows[2:] + rows[:2]).mean == -2.5 and paired(rows[2:] + rows[:2]).seed_sd == found.seed_sd


def test_runs_with_other_seeds_are_averaged_before_they_are_compared():
    rows = seeded("a", {1: [10, 20], 2: [14, 30]}) + seeded("b", {2: [20, 50], 3: [30, 60], 4: [40, "nan"]})
    found = paired(rows)
    assert found.mean == pytest.approx(((30 - 12) + (55 - 25)) / 2)
    assert (found.n_seeds, found.n_cases) == (1, 2) and math.isnan(found.seed_sd)


def test_equal_perfect_cases_are_no_difference_and_no_error():
    rows = [row("c1", "s1", "inf", model=model) for model in ("a", "b")]
    assert paired(rows).reason == "no value: no number in both runs"
    assert paired([*rows, row("c2", "s1", 1), row("c2", "s1", "inf", model="b")]).reason == "a value is infinite"


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


def test_a_file_of_other_papers_metrics_is_there_only_if_something_is_in_it(tmp_path):
    out = tmp_path / "legacy.csv"
    write_legacy(out, summarize([row("c", "s", 1, "psnr_x2ct4095")]))
    assert [line["metric"] for line in read_csv(out, COLUMNS)] == ["psnr_x2ct4095"]
    for _ in range(2):
        write_legacy(out, [])
        assert not out.exists()  # not the table of an earlier report


def test_files_of_scores_and_summaries(tmp_path):
    scores = tmp_path / "scores.csv"
    write_csv(scores, SCORE_COLUMNS, [row("c1", "s1", 1.25), row("c2", "s2", "nan", reason="lost, sadly")])
    rows = read_scores([scores])
    assert rows[1]["reason"] == "lost, sadly"
    write_summary(tmp_path / "summary.csv", summarize(rows))
    (line,) = read_csv(tmp_path / "summary.csv", COLUMNS)
    found = (line["mean"], line["n_missing"], line["low95"], line["reason"])
    assert found == ("1.25", "1", "nan", "1 patient, no interval")
    assert read_csv(tmp_path / "differences.csv", DIFFERENCE_COLUMNS) == []
    write_summary(tmp_path / "summary.csv", summarize([*rows, row("c1", "s1", 1.5, model="b")]))
    (line,) = read_csv(tmp_path / "differences.csv", DIFFERENCE_COLUMNS)
    assert (line["model"], line["minus_model"], line["mean"], line["n_cases"]) == ("b", "a", "0.25", "1")
    with pytest.raises(UserError, match=r"summary.csv: columns are .*expected case, subject"):
        read_scores([tmp_path / "summary.csv"])
    with pytest.raises(UserError, match=r"absent.csv: cannot be read"):
        read_scores([tmp_path / "absent.csv"])
