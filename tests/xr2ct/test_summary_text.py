"""The printed tables."""

import re

from tests.xr2ct.scores import PSNR, all_metrics, row
from xr2ct.comparison import compare
from xr2ct.evaluate import COLUMNS as SCORE_COLUMNS
from xr2ct.structure_tables import structure_tables
from xr2ct.summary import read_scores, summarize
from xr2ct.summary_text import format_structures, format_table, legacy_table
from xr2ct.tables import aligned, write_csv


def test_the_printed_table_is_aligned_and_explains_the_splits():
    rows = all_metrics("c1", "s1") + all_metrics("c2", "s2") + all_metrics("c3", "s1", split="family", model="longer")
    text = format_table(compare(summarize(rows))).splitlines()
    assert text[0].split("  ")[0] == "split" and text[0].endswith("cases / patients")
    assert text[1].split() == ["test", "parallel", "a", "20.12", "0.500", "100.0", "0.250", "1", "7.0", "2", "/", "2"]
    assert text[2].split() == [
        "family",
        "parallel",
        "longer",
        "20.12",
        "0.500",
        "100.0",
        "0.250",
        "1",
        "7.0",
        "1",
        "/",
        "1",
    ]
    assert len({len(line) for line in text[:3]}) == 1
    assert "test: unseen real patients" in text
    assert "family: same patient, new deformation: shows that the machinery works, not that it generalises" in text


def test_the_structure_count_stands_beside_dice_and_only_counts_what_has_a_dice():
    rows = all_metrics("c1", "s1") + [row("c1", "s1", 0.75, "dice", "liver"), row("c1", "s1", "nan", "dice", "lung")]
    head, line, *_ = format_table(compare(summarize(rows))).splitlines()
    at = head.index("structures") + len("structures")
    assert head.index("Dice") < head.index("structures") < head.index("HD95")
    assert line[:at].split()[-2:] == ["0.500", "2"]
    nothing = [row("c1", "s1", 20), row("c1", "s1", "nan", "dice", "heart")]
    assert format_table(compare(summarize(nothing))).splitlines()[1].split()[-6:] == ["-", "-", "-", "1", "/", "1"]


def test_a_number_over_fewer_structures_than_the_dice_says_over_how_many():
    rows = all_metrics("c1", "s1") + [row("c1", "s1", 0.75, "dice", "liver"), row("c1", "s1", "nan", "hd95", "liver")]
    head, line, *_ = format_table(compare(summarize(rows))).splitlines()
    assert line[head.index("structures") :].split()[1:4] == ["7.0", "(1", "structure)"]


def test_the_printed_table_shows_intervals_and_differences_from_the_first_run():
    rows = [
        row(f"c{i}", f"s{i}", 20 + i + gain * (i + 1), model=m) for m, gain in (("mean", 0), ("b", 1)) for i in range(4)
    ]
    rows += [row(f"c{i}", f"s{i}", 9 + 2 * i, model="cone", simulator="cone") for i in range(4)]
    text = format_table(compare(summarize(rows))).splitlines()
    assert re.match(r"test +parallel +mean +21\.50 \[20\.\d\d, 22\.\d\d\]", text[1])
    assert text[5].startswith("paired differences from the first run, same cases and structures")
    assert text[6].split()[:3] == ["split", "simulator", "run"]
    assert re.match(r"test +parallel +b - mean +\+2\.50 \[\+1\.\d\d, \+3\.\d\d\] .* 4 / 4$", text[7])
    assert re.match(r"test +cone - parallel +cone - mean +-9\.50 \[-1\d\.\d\d, -8\.\d\d\] .* 4 / 4$", text[8])
    assert not any("no interval" in line for line in text)


def test_few_patients_are_said_in_the_printed_table():
    text = format_table(compare(summarize(all_metrics("c1", "s1") + all_metrics("c2", "s2")))).splitlines()
    assert text[-1] == "no interval with fewer than 4 patients: test" and "[" not in "".join(text)


def test_legacy_metrics_have_a_table_of_their_own(tmp_path):
    scores = tmp_path / "a.csv"
    rows = [row(f"c{i}", f"s{i}", 20 + i, "psnr_x2ct4095", model=m) for m in ("a", "b") for i in range(2)]
    rows += [
        row("c0", "s0", value, "chamfer_sum", name) | {"unit": "mm"} for name, value in (("heart", 2), ("liver", 4))
    ]
    write_csv(scores, SCORE_COLUMNS, [*rows, row("c0", "s0", 15), row("c1", "s1", "nan", "ssim_skimage2", reason="x")])
    assert [r["metric"] for r in read_scores([scores])] == [PSNR]
    text = legacy_table(summarize(read_scores([scores], legacy=True))).splitlines()
    assert text[0].split("  ")[0] == "split" and text[0].endswith("cases / patients")
    assert text[1].split() == ["test", "parallel", "a", "psnr_x2ct4095", "20.500", "2", "/", "2"]
    assert text[2].split()[2:4] == ["b", "psnr_x2ct4095"]
    assert text[3].split()[3:] == ["chamfer_sum", "mm", "3.00", "1", "/", "1"]  # not each structure
    assert text[4].split() == ["test", "parallel", "a", "ssim_skimage2", "-", "0", "/", "0"]
    assert text[5:] == ["", "test: unseen real patients", "no interval with fewer than 4 patients: test"]


def test_metrics_of_other_papers_are_explained_like_ours():
    rows = [
        row(f"c{i}", "s1", 20 + seed, "psnr_x2ct4095", split="family", seed=seed) for i in range(4) for seed in (1, 2)
    ]
    _, line, empty, *notes = legacy_table(summarize(rows)).splitlines()
    assert "21.500 +- 0.707 [" in line and empty == ""
    assert notes == [
        "family: same patient, new deformation: shows that the machinery works, not that it generalises",
        "family: one patient's anatomy: intervals over deformations, not patients",
        "+-: standard deviation of the mean from seed to seed; [intervals] do not contain it",
    ]


def test_a_metric_without_any_number_does_not_make_a_split_too_small_for_intervals():
    for split, subjects in (("test", 4), ("family", 1)):
        rows = [row(f"c{i}", f"s{i % subjects}", 20 + i, "psnr_x2ct4095", split=split) for i in range(4)]
        rows += [one | {"metric": "ssim_skimage2", "value": "nan", "reason": "lost"} for one in rows]
        assert "no interval" not in legacy_table(summarize(rows))


def test_names_stand_to_the_left_and_numbers_to_the_right():
    assert aligned([["a", "bb", "c"], ["aaa", "b", "ccc"]], left=1) == ["a    bb    c", "aaa   b  ccc"]


def test_a_number_on_fewer_cases_says_so_in_the_table():
    rows = [*all_metrics("c1", "s1"), row("c2", "s2", 20)]
    line = format_table(compare(summarize(rows))).splitlines()[1]
    assert "0.250 (1 case)" in line and line.endswith("2 / 2")


def test_deformations_have_intervals_over_cases_and_a_note():
    rows = [row(f"c{i}", "s1", i, split="family") for i in range(4)]
    text = format_table(compare(summarize(rows))).splitlines()
    assert re.match(r"family +parallel +a +1\.50 \[0\.\d\d, 2\.\d\d\] .* 4 / 1$", text[1])
    assert text[-1] == "family: one patient's anatomy: intervals over deformations, not patients"
    few = format_table(compare(summarize(rows[:3]))).splitlines()
    assert few[-1] == "no interval with fewer than 4 cases: family" and "[" not in "".join(few)


def test_seeds_are_one_line_with_their_spread():
    rows = [row(f"c{i}", f"s{i}", 10 + i + seed, model="b", seed=seed) for i in range(4) for seed in (1, 2, 3)]
    rows = [row(f"c{i}", f"s{i}", 10 + i, model="mean") for i in range(4)] + rows
    text = format_table(compare(summarize(rows))).splitlines()
    assert text[0].endswith("cases / patients  seeds")
    assert re.match(r"test +parallel +mean +11\.50 \[.* 4 / 4 +1$", text[1])
    assert re.match(r"test +parallel +b +13\.50 \+- 1\.00 \[12\.\d\d, 14\.\d\d\] .* 4 / 4 +3$", text[2])
    assert re.match(r"test +parallel +b - mean +\+2\.00 \+- 1\.00 \[\+2\.00, \+2\.00\] .* 3$", text[6])
    assert any(line.startswith("+-: standard deviation of the mean from seed to seed") for line in text)
    one = format_table(compare(summarize(rows[:4])))
    assert "+-" not in one and "seeds" not in one


def judged(metric, own, best):
    """Of a run and of the true CT the score of one structure that nnU-Net finds."""
    ceiling = row("c1", "s1", best, f"nnunet-{metric}", "heart", model="true CT", simulator="")
    return [row("c1", "s1", own, f"nnunet-{metric}", "heart"), ceiling]


def test_what_a_segmenter_finds_stands_below_with_its_ceiling_and_is_explained():
    rows = [*all_metrics("c1", "s1"), *judged("dice", 0.6, 0.8), *judged("hd95", 9, 4), *judged("chamfer", 3, 1.5)]
    title, head, own, _, said, judge_head, judge_own, best, _, *rest = format_table(
        compare(summarize(rows), title="Title")
    ).splitlines()
    assert title == "Title" and "nnU-Net" not in head and own.split()[2] == "a"
    assert said.startswith("what a segmenter finds in the reconstructions") and "lower is better" in said
    assert re.split("  +", judge_head)[3:] == [
        *("nnU-Net Dice", "structures", "% of true CT", "nnU-Net HD95 mm", "nnU-Net Chamfer mm", "cases / patients"),
    ]
    assert judge_own.split() == ["test", "parallel", "a", "0.600", "1", "75", "9.0", "3.00", "1", "/", "1"]
    assert best.split() == ["test", "true", "CT", "0.800", "1", "100", "4.0", "1.50", "1", "/", "1"]
    assert any(line.startswith("true CT: the segmenter on the CTs themselves") for line in rest)
    without = format_table(compare(summarize(all_metrics("c1", "s1"))))
    assert "true CT" not in without and "segmenter" not in without


def test_a_judged_distance_over_fewer_structures_than_its_dice_says_so():
    rows = [row("c1", "s1", 0.5, "nnunet-dice", name) for name in ("heart", "liver")]
    rows += [row("c1", "s1", 9, "nnunet-hd95", "heart"), row("c1", "s1", "nan", "nnunet-hd95", "liver", reason="none")]
    assert "0.500           2  9.0 (1 structure)" in format_table(compare(summarize(rows)))


def test_a_judged_run_without_another_is_compared_within_its_table():
    rows = [one | {"model": m} for m in ("a", "b") for one in [*all_metrics("c1", "s1"), *judged("dice", 0.6, 0.8)[:1]]]
    lines = [line for line in format_table(compare(summarize(rows))).splitlines() if " b - a " in line]
    assert [len(line.split()) for line in lines] == [5 + 6 + 3, 5 + 2 + 3] and lines[1].split()[5] == "+0.000"


def test_structures_that_a_segmenter_finds_are_a_row_each():
    rows = [row(f"c{i}", "s1", 0.5 + i / 10, "nnunet-dice", "heart", split="family") for i in (0, 1)]
    rows += [row(f"c{i}", "s1", v, "nnunet-hd95", "heart", split="family") for i, v in enumerate((9, "nan"))]
    rows += [row("c0", "s1", 0.9, "nnunet-dice", "liver", split="family", model="true CT", simulator="")]
    (table,) = structure_tables(summarize(rows))
    title, head, *lines = format_structures(table).splitlines()
    assert title.startswith("family: every structure as nnU-Net finds it (means")
    assert re.split("  +", head) == ["metric", "structure", "a", "true CT"]
    assert [re.split("  +", line) for line in lines[:4]] == [
        ["Dice", "heart", "0.550", "-"],
        ["Dice", "liver", "-", "0.900"],
        ["HD95 mm", "heart", "9.0 (1 case)", "-"],
        ["HD95 mm", "liver", "-", "-"],
    ]
    assert [line.split()[:2] for line in lines[4:6]] == [["Chamfer", "mm"]] * 2 and lines[6] == ""
    assert lines[7:] == [
        "family: same patient, new deformation: shows that the machinery works, not that it generalises",
        "family: one patient's anatomy: intervals over deformations, not patients",
    ]
