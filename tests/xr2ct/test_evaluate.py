"""Scores of reconstructions with known errors; no case is ever dropped."""

import csv
import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.phantoms import AFFINE, STRUCTURES, phantom_case, write_phantom_shard
from tests.xr2ct.runs import brighter, write_nifti, write_run
from xr2ct.errors import UserError
from xr2ct.evaluate import COLUMNS, evaluate
from xr2ct.metrics.legacy import LEGACY_METRICS
from xr2ct.metrics.legacy_structures import LEGACY_LABEL_METRICS, LEGACY_STRUCTURE_METRICS
from xr2ct.shards import IGNORE, Shard

WINDOW = (-1000.0, 1500.0)
PSNR, MAE = "psnr_window-1000to1500_range1", "mae_window-1000to1500"
MSE, COSINE = "mse_window-1000to1500", "cosine_window-1000to1500_range1"
SSIM = "ssim3d_gauss11_sigma1.5_window-1000to1500_range1"


@pytest.fixture
def shard(tmp_path):
    cases = [phantom_case("p0"), phantom_case("p1", shift=(0.05, 0.0, 0.02))]
    return Shard(write_phantom_shard(tmp_path / "shard.h5", cases, split="test"))


def rows_of(index, shard, tmp_path, window=WINDOW, legacy=False):
    """Rows of the CSV by (case, metric, structure)."""
    out = tmp_path / "scores.csv"
    evaluate(reconstructions=index, shards=[Path(shard.path)], window=window, out=out, legacy=legacy)
    with out.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert tuple(reader.fieldnames) == COLUMNS
    for row in rows:
        assert row["reason"] if math.isnan(float(row["value"])) else True, f"NaN without a reason: {row}"
    found = {(row["case"], row["metric"], row["structure"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def scores(index, shard, tmp_path, window=WINDOW, legacy=False):
    """The same of cases that are annotated for every structure: no row is missing."""
    found = rows_of(index, shard, tmp_path, window, legacy)
    of_structure = 3 + legacy * len(LEGACY_STRUCTURE_METRICS)
    of_case = 9 + legacy * (len(LEGACY_METRICS) - len(LEGACY_STRUCTURE_METRICS))
    assert len(found) == len(shard) * (of_case + of_structure * (len(STRUCTURES) - 1))
    return found


def value(rows, *key):
    return float(rows[key]["value"])


def test_a_perfect_reconstruction(shard, tmp_path):
    rows = scores(write_run(tmp_path / "truth", shard), shard, tmp_path)
    assert value(rows, "p1", PSNR, "") == math.inf
    assert value(rows, "p1", SSIM, "") == pytest.approx(1)
    assert value(rows, "p1", MAE, "") == value(rows, "p1", MSE, "") == 0
    assert value(rows, "p1", COSINE, "") == pytest.approx(1)
    for name in STRUCTURES[1:]:
        assert (value(rows, "p1", "dice", name), value(rows, "p1", "hd95", name)) == (1, 0)
        assert value(rows, "p1", "chamfer", name) == 0
    row = rows["p1", "dice", "ball"]
    assert (row["subject"], row["split"], row["simulator"], row["model"]) == ("key-p1", "test", "parallel", "truth")
    assert [rows["p0", metric, s]["unit"] for metric, s in ((PSNR, ""), (MAE, ""), ("hd95", "rod"))] == [
        "dB",
        "HU",
        "mm",
    ]


def test_a_known_error_by_hand(shard, tmp_path):
    rows = scores(write_run(tmp_path / "bright", shard, brighter), shard, tmp_path)
    ct = shard.case(0).ct_hu.astype(float)
    assert ct.max() < 1450  # so that 50 HU are 50 HU everywhere in the window
    assert value(rows, "p0", MAE, "") == pytest.approx(50)
    assert value(rows, "p0", MSE, "") == pytest.approx(2500, rel=1e-5) and rows["p0", MSE, ""]["unit"] == "HU^2"
    assert value(rows, "p0", PSNR, "") == pytest.approx(20 * math.log10(2500 / 50), abs=1e-4)
    unit = (ct + 1000) / 2500  # the brighter volume is this + 0.02
    cosine = (unit @ (unit + 0.02).swapaxes(1, 2)).trace(axis1=1, axis2=2).sum()
    cosine /= math.sqrt((unit**2).sum() * ((unit + 0.02) ** 2).sum())
    assert value(rows, "p0", COSINE, "") == pytest.approx(cosine, abs=1e-6) and cosine < 0.9999


def test_errors_inside_and_outside_of_structures_are_told_apart(tmp_path):
    case = phantom_case("p")
    case.label[:3] = IGNORE

    def inside_only(case):
        inside = (case.label != 0) & (case.label != IGNORE)
        too_much = np.where(inside, 50, 0) + np.where(case.label == IGNORE, 300, 0)
        return case.ct_hu + too_much.astype(np.int16), case.label

    shard = Shard(write_phantom_shard(tmp_path / "s.h5", [case], split="test"))
    rows = scores(write_run(tmp_path / "a", shard, inside_only), shard, tmp_path)
    assert value(rows, "p", "mae-inside_window-1000to1500", "") == pytest.approx(50)
    assert value(rows, "p", "psnr-inside_window-1000to1500_range1", "") == pytest.approx(20 * math.log10(50), abs=1e-4)
    assert value(rows, "p", "mae-outside_window-1000to1500", "") == 0
    assert value(rows, "p", "psnr-outside_window-1000to1500_range1", "") == math.inf
    assert rows["p", "psnr-inside_window-1000to1500_range1", ""]["unit"] == "dB"
    assert rows["p", "mae-outside_window-1000to1500", ""]["unit"] == "HU"


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (0, {"inside": "case has no labelled voxel", "outside": "case has no labelled voxel"}),
        (IGNORE, {"inside": "case has no labelled voxel", "outside": "case has no labelled voxel"}),
        (1, {"inside": "", "outside": "no voxel lies outside the labelled structures"}),
    ],
)
def test_a_region_without_voxels_says_so(tmp_path, label, said):
    case = phantom_case("p")
    case.label[...] = label
    shard = Shard(write_phantom_shard(tmp_path / "s.h5", [case], split="test"))
    rows = scores(write_run(tmp_path / "a", shard, brighter), shard, tmp_path)
    for region, reason in said.items():
        for metric in (f"psnr-{region}_window-1000to1500_range1", f"mae-{region}_window-1000to1500"):
            assert rows["p", metric, ""]["reason"] == reason
            assert math.isnan(value(rows, "p", metric, "")) == bool(reason)


@pytest.mark.parametrize(
    ("folder", "index", "model", "seed"),
    [
        ("default-seed2", {"seed": 2}, "default", "2"),
        ("default-seed2", {"seed": None}, "default", "2"),
        ("default-seed2", {}, "default", "2"),  # an index of before there were seeds
        ("default-seed2", {"seed": 3}, "default-seed2", ""),
        ("default", {"seed": 3}, "default", ""),
        ("a-seed1-seedling", {"seed": 1}, "a-seed1-seedling", ""),
        ("-seed1", {"seed": 1}, "-seed1", ""),
    ],
)
def test_the_seed_of_a_run_is_a_column(shard, tmp_path, folder, index, model, seed):
    rows = scores(write_run(tmp_path / folder, shard, **index), shard, tmp_path)
    assert {(row["model"].removeprefix("'"), row["seed"]) for row in rows.values()} == {(model, seed)}


def test_legacy_metrics_come_on_request_beside_ours(shard, tmp_path):
    index = write_run(tmp_path / "bright", shard, brighter)
    rows = scores(index, shard, tmp_path, legacy=True)
    assert value(rows, "p0", PSNR, "") == pytest.approx(20 * math.log10(50), abs=1e-4)
    assert value(rows, "p0", "psnr_x2ct4095", "") == pytest.approx(20 * math.log10(4095 / 50))
    assert value(rows, "p0", "psnr_ear4096", "") == pytest.approx(20 * math.log10(4096 / 50))
    assert rows["p0", "ssim_skimage2", ""]["unit"] == "1"
    assert not any(metric in LEGACY_METRICS for _, metric, _ in scores(index, shard, tmp_path))
    damage_missing(tmp_path / "bright" / "p0" / "ct.nii.gz", None)
    rows = scores(index, shard, tmp_path, legacy=True)
    assert rows["p0", "psnr_gtrange", ""]["reason"] == "file is missing"


def test_legacy_metrics_leave_the_other_rows_as_they_are(shard, tmp_path):
    index = write_run(tmp_path / "bright", shard, brighter)
    plain, with_legacy = scores(index, shard, tmp_path), scores(index, shard, tmp_path, legacy=True)
    assert plain == {key: row for key, row in with_legacy.items() if key[1] not in LEGACY_METRICS}


def test_legacy_metrics_of_structures_by_hand(tmp_path):
    """One structure is not annotated, one voxel may not be judged; structures have other label values in the run."""
    case = phantom_case("p", label_status=np.array([3, 3, 3, 0], np.uint8))
    case.label[...] = 0
    case.label[2, 3, 4:8], case.label[10, 3, 4], case.label[0, 0, 0] = 1, 2, IGNORE

    def guess(case):
        ball, rod, plate = 3, 1, 2
        label = np.zeros_like(case.label)
        label[2, 3, 4:7], label[2, 3, 9], label[10, 3, 4], label[5, 5, 5], label[0, 0, 0] = ball, ball, rod, plate, ball
        return case.ct_hu, label

    shard = Shard(write_phantom_shard(tmp_path / "s.h5", [case], split="test"))
    index = write_run(tmp_path / "a", shard, guess, structures=["background", "rod", "plate", "ball"])
    rows = rows_of(index, shard, tmp_path, legacy=True)
    n = case.label.size - 1  # 5 voxels are no background in either, 6 in one of them; the plate is background here
    ball, rod, background = 2 * 3 / (4 + 4), 1.0, 2 * (n - 6) / ((n - 5) + (n - 5))
    assert value(rows, "p", "dice", "ball") == pytest.approx(ball) and value(rows, "p", "dice", "rod") == rod
    assert value(rows, "p", "dice_micro", "") == pytest.approx(2 * (3 + 1) / (8 + 2))
    assert value(rows, "p", "dice_micro_background", "") == pytest.approx((2 * (n - 6) + 8) / (2 * n))
    assert value(rows, "p", "dice_macro_background", "") == pytest.approx((ball + rod + background) / 3)
    assert value(rows, "p", "hd95_voxels", "ball") == pytest.approx(2 * 0.85)  # of 0, 0, 0, 2
    assert value(rows, "p", "chamfer_sum", "ball") == pytest.approx((1 + 2) / 4 * AFFINE[0, 0])
    assert value(rows, "p", "chamfer_sum_squared", "ball") == pytest.approx((1 + 4) / 4 * AFFINE[0, 0] ** 2)
    units = [rows["p", metric, "ball"]["unit"] for metric in LEGACY_STRUCTURE_METRICS]
    assert units == ["voxel", "mm", "mm^2"] and rows["p", "dice_micro", ""]["unit"] == "1"
    assert {structure for _, _, structure in rows} == {"", "ball", "rod"}


@pytest.mark.parametrize(
    ("status", "changes", "reason"),
    [
        ([3, 3, 3, 3], {"structures": ["background", "femur"]}, "model and case have no structure in common"),
        ([3, 0, 0, 0], {}, "model and case have no structure in common"),
        ([3, 3, 3, 3], {"change": lambda case: (case.ct_hu, None)}, "the model predicts no labels"),
    ],
)
def test_a_legacy_dice_that_is_not_defined_says_so(tmp_path, status, changes, reason):
    case = phantom_case("p", label_status=np.array(status, np.uint8))
    shard = Shard(write_phantom_shard(tmp_path / "s.h5", [case], split="test"))
    rows = rows_of(write_run(tmp_path / "a", shard, **changes), shard, tmp_path, legacy=True)
    for metric in LEGACY_LABEL_METRICS:
        assert math.isnan(value(rows, "p", metric, "")) and rows["p", metric, ""]["reason"] == reason


def test_a_metric_that_is_not_defined_says_so(tmp_path):
    case = phantom_case("p")
    case.ct_hu[...] = -1000
    shard = Shard(write_phantom_shard(tmp_path / "s.h5", [case], split="test"))
    rows = scores(write_run(tmp_path / "a", shard), shard, tmp_path, legacy=True)
    for metric in (COSINE, "psnr_gtrange", "psnr_nafminmax"):
        assert math.isnan(value(rows, "p", metric, "")) and rows["p", metric, ""]["reason"] == "volume is constant"


def test_a_shifted_structure_is_off_by_its_spacing(shard, tmp_path):
    def shifted(case):
        label = np.roll(case.label, 1, axis=0)
        return case.ct_hu, label

    rows = scores(write_run(tmp_path / "shifted", shard, shifted), shard, tmp_path)
    assert value(rows, "p0", "hd95", "plate") == pytest.approx(AFFINE[2, 2])
    assert 0 < value(rows, "p0", "chamfer", "plate") < AFFINE[2, 2]
    size = (shard.case(0).label == 3).sum(axis=(1, 2))
    assert value(rows, "p0", "dice", "plate") == pytest.approx((size.sum() - size.max()) / size.sum())


def test_labels_are_matched_by_name(shard, tmp_path):
    def swapped(case):
        return case.ct_hu, np.array([0, 3, 1, 2], np.uint8)[case.label]

    index = write_run(tmp_path / "a", shard, swapped, structures=["background", "rod", "plate", "ball"])
    rows = scores(index, shard, tmp_path)
    assert [value(rows, "p0", "dice", name) for name in STRUCTURES[1:]] == [1, 1, 1]


def test_a_model_without_labels_keeps_its_rows(shard, tmp_path):
    rows = scores(write_run(tmp_path / "a", shard, lambda case: (case.ct_hu, None)), shard, tmp_path)
    assert math.isnan(value(rows, "p0", "dice", "ball"))
    assert rows["p0", "dice", "ball"]["reason"] == "the model predicts no labels"
    assert value(rows, "p0", MAE, "") == 0


def test_an_unknown_and_an_unseen_structure(shard, tmp_path):
    def no_rod(case):
        return case.ct_hu, np.where(case.label == 2, 0, case.label).astype(np.uint8)

    index = write_run(tmp_path / "a", shard, no_rod, structures=["background", "ball", "rod"])
    rows = scores(index, shard, tmp_path)
    assert value(rows, "p0", "dice", "rod") == 0 and math.isnan(value(rows, "p0", "hd95", "rod"))
    assert rows["p0", "hd95", "rod"]["reason"] == "structure has no voxel in the reconstruction"
    assert math.isnan(value(rows, "p0", "dice", "plate"))
    assert rows["p0", "dice", "plate"]["reason"] == "the model does not know this structure"


def test_structures_the_reference_does_not_show_have_no_rows(tmp_path):
    status = np.array([3, 3, 2, 0], np.uint8)
    case = phantom_case("p", label_status=status)
    case.label[case.label == 3] = 0
    shard = Shard(write_phantom_shard(tmp_path / "s.h5", [case], split="test"))
    out = tmp_path / "a.csv"
    evaluate(reconstructions=write_run(tmp_path / "a", shard), shards=[Path(shard.path)], window=WINDOW, out=out)
    assert {line.split(",")[7] for line in out.read_text().splitlines()[1:]} == {"", "ball", "rod"}


def test_ignored_voxels_are_not_judged(tmp_path):
    case = phantom_case("p")
    z, y, x = np.argwhere(case.label == 0)[0]
    case.label[z, y, x] = IGNORE
    shard = Shard(write_phantom_shard(tmp_path / "s.h5", [case], split="test"))

    def guess(case):
        label = case.label.copy()
        label[z, y, x] = 1
        return case.ct_hu, label

    rows = scores(write_run(tmp_path / "a", shard, guess), shard, tmp_path)
    assert value(rows, "p", "dice", "ball") == 1


def damage_missing(path, case):
    path.unlink()


def damage_truncated(path, case):
    path.write_bytes(path.read_bytes()[:-40])


def damage_flipped(path, case):
    raw = bytearray(gzip.decompress(path.read_bytes()))
    packed = bytearray(gzip.compress(bytes(raw), compresslevel=0, mtime=0))
    packed[len(packed) // 2] ^= 1  # stored, so only the CRC at the end of the stream can tell
    path.write_bytes(packed)


def damage_text(path, case):
    path.write_text("<html>429</html>")


def damage_shape(path, case):
    write_nifti(path, case.ct_hu[:, :, :-1], case.affine)


def damage_shift(path, case):
    moved = case.affine.copy()
    moved[0, 3] += 0.01
    write_nifti(path, case.ct_hu, moved)


def damage_mirror(path, case):
    mirrored = case.affine @ np.diag([-1.0, 1, 1, 1])
    write_nifti(path, case.ct_hu, mirrored)


def damage_nan(path, case):
    values = case.ct_hu.astype(np.float32)
    values[1, 2, 3] = np.nan
    write_nifti(path, values, case.affine)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_missing, "file is missing"),
        (damage_truncated, "file is damaged"),
        (damage_flipped, "file is damaged"),
        (damage_text, "file is damaged"),
        (damage_shape, "grid (z, y, x) is (20, 24, 27), expected (20, 24, 28)"),
        (damage_shift, "corners of the grid lie up to 0.01 mm off"),
        (damage_mirror, "corners of the grid lie up to"),
        (damage_nan, "reconstruction holds values that are not finite"),
    ],
)
def test_an_unusable_reconstruction_is_rows_with_a_reason(shard, tmp_path, damage, reason):
    index = write_run(tmp_path / "a", shard)
    damage(tmp_path / "a" / "p0" / "ct.nii.gz", shard.case(0))
    rows = scores(index, shard, tmp_path)
    for metric in (PSNR, SSIM, MAE, MSE, COSINE, f"psnr-inside{PSNR[4:]}", f"mae-outside{MAE[3:]}"):
        assert math.isnan(value(rows, "p0", metric, "")) and reason in rows["p0", metric, ""]["reason"]
        assert not math.isnan(value(rows, "p1", metric, ""))
    assert value(rows, "p0", "dice", "ball") == 1  # the label file is whole


def test_a_damaged_label_leaves_the_volume_scores(shard, tmp_path):
    index = write_run(tmp_path / "a", shard)
    damage_truncated(tmp_path / "a" / "p0" / "label.nii.gz", None)
    rows = scores(index, shard, tmp_path)
    assert math.isnan(value(rows, "p0", "dice", "ball")) and "damaged" in rows["p0", "dice", "ball"]["reason"]
    assert value(rows, "p0", MAE, "") == 0


def test_a_case_that_was_not_reconstructed_keeps_its_rows(shard, tmp_path):
    index = write_run(tmp_path / "a", shard)
    content = json.loads(index.read_text())
    del content["cases"][0]
    index.write_text(json.dumps(content))
    rows = scores(index, shard, tmp_path)
    assert rows["p0", PSNR, ""]["reason"] == rows["p0", "dice", "rod"]["reason"] == "case was not reconstructed"


def test_a_volume_smaller_than_the_ssim_window_says_so(tmp_path):
    shard = Shard(write_phantom_shard(tmp_path / "s.h5", [phantom_case("p", shape=(10, 12, 14))], split="test"))
    rows = scores(write_run(tmp_path / "a", shard), shard, tmp_path)
    assert rows["p", SSIM, ""]["reason"] == "volume is smaller than the metric's window"


@pytest.mark.parametrize("case_id", ["=cmd|x", "+1a", "-x", "@a"])
def test_cells_that_a_spreadsheet_would_run_are_neutralised(tmp_path, case_id):
    shard = Shard(write_phantom_shard(tmp_path / "s.h5", [phantom_case(case_id)], split="test"))
    rows = scores(write_run(tmp_path / "a", shard), shard, tmp_path)
    assert {case for case, *_ in rows} == {f"'{case_id}"}


def test_wrong_use_is_said(shard, tmp_path):
    index = write_run(tmp_path / "a", shard)
    for low, high in ((1500.0, -1000.0), (-1000.0, math.inf), (math.nan, 1500.0)):
        with pytest.raises(UserError, match=f"window is {low:g} to {high:g} HU, expected the lower end first"):
            evaluate(reconstructions=index, shards=[Path(shard.path)], window=(low, high), out=tmp_path / "a.csv")
    with pytest.raises(UserError, match="case 'p0' occurs twice in the shards"):
        evaluate(reconstructions=index, shards=[Path(shard.path)] * 2, window=WINDOW, out=tmp_path / "a.csv")
    other = write_phantom_shard(tmp_path / "other.h5", [phantom_case("p0")], split="test")
    with pytest.raises(UserError, match="case 'p1' is in none of the shards"):
        evaluate(reconstructions=index, shards=[other], window=WINDOW, out=tmp_path / "a.csv")
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "x"}, "holds x 1.0.0, expected xr2ct/reconstruction 1.x"),
        ({"schema_version": "2.0.0"}, "expected xr2ct/reconstruction 1.x"),
        ({"cases": [{"case": "p0", "ct": "../../ct.nii.gz", "label": None}]}, "leaves the folder of the index"),
        ({"cases": [{"case": "p0", "ct": "/etc/passwd", "label": None}]}, "leaves the folder of the index"),
        ({"cases": [{"case": "p0"}]}, "is not a whole xr2ct/reconstruction index"),
        ({"window_hu": None}, "is not a whole xr2ct/reconstruction index"),
        ({"run": 7}, "is not a whole xr2ct/reconstruction index"),
    ],
)
def test_a_foreign_index_is_refused(shard, tmp_path, change, message):
    index = write_run(tmp_path / "a", shard, **change)
    with pytest.raises(UserError, match=message):
        scores(index, shard, tmp_path)
