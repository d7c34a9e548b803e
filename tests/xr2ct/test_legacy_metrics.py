"""What other papers call PSNR, SSIM, Dice, HD95 and Chamfer: by arithmetic, from printed errors, SSIM by scikit-image."""

import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from xr2ct.metrics.legacy import LEGACY_METRICS, LEGACY_VOLUME_METRICS
from xr2ct.metrics.legacy_structures import LEGACY_LABEL_METRICS, LEGACY_STRUCTURE_METRICS
from xr2ct.metrics.registry import STRUCTURE_METRICS, VOLUME_METRICS, compare_structures, compare_volumes
from xr2ct.metrics.window import Window

WINDOW = Window(-1000.0, 1500.0)
PSNR = "psnr_window-1000to1500_range1"


def legacy(name, true, predicted, window=WINDOW):
    unit, metric = LEGACY_VOLUME_METRICS[name]
    assert unit == ("dB" if name.startswith("psnr") else "1")
    return metric(true, predicted, window)


def ours(true, predicted):
    return compare_volumes(true, predicted, WINDOW)[PSNR]


def volumes(shape=(14, 17, 12), seed=0):
    """HU within every window here, the error too."""
    random = np.random.default_rng(seed)
    true = random.integers(-800, 1200, shape).astype(np.int16)
    return true, (true + random.integers(-150, 150, shape)).astype(np.int16)


def errors_of(mean_square, shape=(10, 10, 10)):
    """A true volume of 0 HU and a prediction whose whole HU errors have this mean square, as near as they can."""
    low = int(math.sqrt(mean_square))
    share = (mean_square - low**2) / ((low + 1) ** 2 - low**2)
    n = math.prod(shape)
    error = np.full(n, low, np.int16)
    error[: round(share * n)] += 1
    return np.zeros(shape, np.int16), error.reshape(shape)


def test_a_peak_of_4095_on_0_to_2500_gives_4_29_db():
    true, predicted = volumes()
    gain = legacy("psnr_x2ct4095", true, predicted) - legacy("psnr_perx2ct2500", true, predicted)
    assert gain == pytest.approx(4.286, abs=5e-4)
    assert legacy("psnr_x2ct4095", true, predicted) - ours(true, predicted) == pytest.approx(4.286, abs=1e-3)


def test_a_range_of_2_gives_6_02_db():
    true, predicted = volumes()
    assert legacy("psnr_range2", true, predicted) - ours(true, predicted) == pytest.approx(6.021, abs=5e-4)


def test_x2ct_spine_prints_27_27_where_the_range_gives_22_98():
    true, predicted = errors_of(31439.027)
    assert legacy("psnr_x2ct4095", true, predicted) == pytest.approx(27.270, abs=1e-3)
    assert legacy("psnr_perx2ct2500", true, predicted) == pytest.approx(22.984, abs=1e-3)


@pytest.mark.parametrize(
    ("mse_z", "sigma_hu", "psnr_db"),
    [(0.2910, 522.1, 23.2530), (0.2892, 544.1, 22.9221), (0.2488, 543.9, 23.5782), (0.2532, 527.9, 23.7613)],
)
def test_ear_prints_a_psnr_in_hu_beside_an_mse_of_z_scores(mse_z, sigma_hu, psnr_db):
    """Table 3 of EAR; sigma is 4096 divided by the peak that makes this PSNR of this MSE, alike in all rows."""
    true, predicted = errors_of(mse_z * sigma_hu**2)
    assert legacy("psnr_ear4096", true, predicted) == pytest.approx(psnr_db, abs=2e-3)
    assert legacy("psnr_ear4096", true, predicted) - ours(true, predicted) == pytest.approx(4.288, abs=1e-3)


def test_which_hu_count():
    """X2CT's data end at -1024 and 1476 HU, ours at the window, EAR's nowhere."""
    true = np.full((4, 6, 8), 1400, np.int16)
    predicted = true.copy()
    predicted[1, 2, 3] = 3000
    n = true.size
    assert legacy("psnr_x2ct4095", true, predicted) == pytest.approx(10 * math.log10(4095**2 * n / 76**2))
    assert ours(true, predicted) == pytest.approx(10 * math.log10(2500**2 * n / 100**2), abs=1e-4)
    assert legacy("psnr_ear4096", true, predicted) == pytest.approx(10 * math.log10(4096**2 * n / 1600**2))
    true[...], predicted[...] = -1024, -1024
    predicted[1, 2, 3] = -1004
    assert legacy("psnr_perx2ct2500", true, predicted) == pytest.approx(10 * math.log10(2500**2 * n / 20**2))
    assert ours(true, predicted) == math.inf


def test_x2ct_cuts_fractions_before_it_compares():
    true = np.full((4, 6, 8), 10.9)
    assert legacy("psnr_x2ct4095", true, np.full((4, 6, 8), 10.1)) == 100
    assert legacy("psnr_x2ct4095", true, np.full((4, 6, 8), 11.1)) == pytest.approx(20 * math.log10(4095))


def test_slices_of_each_axis_and_100_db_for_equal_ones():
    true, predicted = np.zeros((4, 6, 8), np.int16), np.zeros((4, 6, 8), np.int16)
    predicted[1, 2, 3] = 60
    expected = {}
    for axis, (n_slices, per_slice) in {"z": (4, 48), "y": (6, 32), "x": (8, 24)}.items():
        one = 20 * math.log10(4095 / 60) + 10 * math.log10(per_slice)
        expected[axis] = (one + 100 * (n_slices - 1)) / n_slices
        assert legacy(f"psnr_x2ct4095_slices_{axis}", true, predicted) == pytest.approx(expected[axis])
    mean = sum(expected.values()) / 3
    assert legacy("psnr_x2ct4095_slices", true, predicted) == pytest.approx(mean)
    assert legacy("psnr_x2ct4095", true, predicted) == pytest.approx(20 * math.log10(4095 / 60) + 10 * math.log10(192))
    assert legacy("psnr_x2ct4095_slices", true, true) == legacy("psnr_x2ct4095", true, true) == 100


def test_peaks_taken_from_the_true_volume():
    true = np.full((4, 6, 8), -500, np.int16)  # 0.2 of the window
    true[0, 0, 0] = 500  # 0.6
    predicted = true.copy()
    predicted[3, 5, 7] = 1500  # 0.8 too high
    one = 10 * math.log10(true.size / 0.8**2)
    assert legacy("psnr_gtrange", true, predicted) == pytest.approx(one + 20 * math.log10(0.4), abs=1e-4)
    assert legacy("psnr_r2gtmax", true, predicted) == pytest.approx(one + 20 * math.log10(0.6), abs=1e-4)
    assert legacy("psnr_gtrange", true, predicted) < legacy("psnr_r2gtmax", true, predicted) < ours(true, predicted)
    error = 1.0**2 + (1 - 0.5) ** 2  # where the stretched true volume is 1, the other is (0.6 - 0.2) / 0.8
    assert legacy("psnr_nafminmax", true, predicted) == pytest.approx(10 * math.log10(true.size / error), abs=1e-4)


def test_minmax_is_blind_to_scale_and_offset():
    true, _ = volumes()
    scaled = (true // 2 * 2) / 2 + 100.0
    assert legacy("psnr_nafminmax", (true // 2 * 2), scaled) > 100 > 30 > ours(true, scaled)


@pytest.mark.parametrize("shape", [(14, 17, 12), (7, 9, 8)])
@pytest.mark.parametrize("data_range", [1, 2])
def test_ssim_of_volumes_agrees_with_scikit_images_default(shape, data_range):
    true, predicted = volumes(shape)
    a, b = WINDOW.to_unit(true).astype(float), WINDOW.to_unit(predicted).astype(float)
    oracle = structural_similarity(a, b, data_range=float(data_range))
    assert legacy(f"ssim_skimage{data_range}", true, predicted) == pytest.approx(oracle, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "window", "data_range"),
    [("ssim_x2ct_slices", Window(-1024.0, 1476.0), 1.0), ("ssim_skimage2_slices", WINDOW, 2.0)],
)
def test_ssim_of_slices_agrees_with_scikit_image(name, window, data_range):
    true, predicted = volumes()
    predicted[:5] += 200  # not the same along every axis
    a, b = window.to_unit(true).astype(float), window.to_unit(predicted).astype(float)
    oracle = [structural_similarity(a, b, data_range=data_range, channel_axis=axis) for axis in range(3)]
    assert np.ptp(oracle) > 1e-3
    assert legacy(name, true, predicted) == pytest.approx(np.mean(oracle), abs=1e-9)


def test_a_wider_range_flatters_ssim():
    true, predicted = np.full((8, 9, 10), -1000, np.int16), np.full((8, 9, 10), -975, np.int16)  # 0 and 0.01
    assert legacy("ssim_skimage1", true, predicted) == pytest.approx(1e-4 / (1e-4 + 1e-4), abs=1e-5)
    for name in ("ssim_skimage2", "ssim_skimage2_slices"):
        assert legacy(name, true, predicted) == pytest.approx(4e-4 / (1e-4 + 4e-4), abs=1e-5)
    true, predicted = volumes()
    assert legacy("ssim_skimage2", true, predicted) > legacy("ssim_skimage1", true, predicted)


def padded_ssim(a, b):
    """R2-Gaussian's SSIM of one slice, pixel by pixel."""
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(taps, taps) / taps.sum() ** 2
    a, b = np.pad(a, 5), np.pad(b, 5)
    total = []
    for i, j in np.ndindex(a.shape[0] - 10, a.shape[1] - 10):
        p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
        mp, mq = (window * p).sum(), (window * q).sum()
        vp, vq = (window * p**2).sum() - mp**2, (window * q**2).sum() - mq**2
        cov = (window * p * q).sum() - mp * mq
        total.append((2 * mp * mq + 1e-4) * (2 * cov + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    return np.mean(total)


def test_r2_pads_with_zeros_and_leaves_out_slices_without_tissue():
    true, predicted = volumes((5, 7, 6))
    true[2] = -1000
    a, b = WINDOW.to_unit(true).astype(float), WINDOW.to_unit(predicted).astype(float)
    expected = []
    for axis in range(3):
        slices = [(np.take(a, i, axis), np.take(b, i, axis)) for i in range(a.shape[axis])]
        expected.append(np.mean([padded_ssim(p, q) for p, q in slices if p.max() > 0]))
    assert legacy("ssim_r2gauss11_slices", true, predicted) == pytest.approx(np.mean(expected), abs=1e-9)


@pytest.mark.parametrize("name", LEGACY_VOLUME_METRICS)
def test_perfect_empty_and_constant_volumes(name):
    true, predicted = volumes()
    perfect = legacy(name, true, true)
    assert perfect == (pytest.approx(1) if name.startswith("ssim") else 100 if "x2ct" in name else math.inf)
    assert legacy(name, true, predicted) < perfect
    empty = np.zeros((0, 3, 2), np.int16)
    assert math.isnan(legacy(name, empty, empty)) or "x2ct" in name
    air = np.full((8, 9, 10), -1000, np.int16)
    found = legacy(name, air, air + np.int16(100))
    undefined = ("psnr_gtrange", "psnr_r2gtmax", "psnr_nafminmax", "ssim_r2gauss11_slices")
    assert math.isnan(found) == (name in undefined)


@pytest.mark.parametrize("name", ["ssim_skimage1", "ssim_skimage2", "ssim_skimage2_slices", "ssim_x2ct_slices"])
def test_ssim_without_room_for_its_window_is_not_a_number(name):
    true, predicted = volumes((14, 6, 12))
    assert math.isnan(legacy(name, true, predicted))


SPACING_XYZ = np.diag([2.0, 3.0, 5.0, 1.0])


def mask(*voxels_zyx):
    out = np.zeros((4, 6, 8), bool)
    for voxel in voxels_zyx:
        out[voxel] = True
    return out


def surfaces(true, predicted):
    return compare_structures(true, predicted, SPACING_XYZ, {**STRUCTURE_METRICS, **LEGACY_STRUCTURE_METRICS})


def test_distances_of_a_structure_in_voxels_summed_and_squared_by_hand():
    """From the true voxel the one two steps along x lies 4 mm off, the one a step along z 5 mm, but nearer in voxels."""
    found = surfaces(mask((1, 2, 3)), mask((1, 2, 5), (2, 2, 3)))
    assert found["hd95"] == pytest.approx(4 + 0.95 * (5 - 4))
    assert found["hd95_voxels"] == pytest.approx(1 + 0.95 * (2 - 1))
    assert found["chamfer"] == pytest.approx((4 + (4 + 5) / 2) / 2)
    assert found["chamfer_sum"] == pytest.approx(4 + (4 + 5) / 2)
    assert found["chamfer_sum_squared"] == pytest.approx(4**2 + (4**2 + 5**2) / 2)
    diagonal = surfaces(mask((1, 2, 3)), mask((2, 4, 4)))
    assert diagonal["hd95_voxels"] == pytest.approx(math.sqrt(1 + 4 + 1))
    assert diagonal["chamfer_sum_squared"] == pytest.approx(2 * (5**2 + 6**2 + 2**2))


@pytest.mark.parametrize("name", LEGACY_STRUCTURE_METRICS)
def test_distances_of_equal_and_empty_structures(name):
    one = mask((1, 2, 3), (1, 2, 4))
    assert surfaces(one, one)[name] == 0
    assert all(math.isnan(surfaces(*pair)[name]) for pair in ((one, mask()), (mask(), one), (mask(), mask())))


def labels(*values):
    return np.array(values, np.uint8)


def of_labels(name, true, predicted):
    unit, metric = LEGACY_LABEL_METRICS[name]
    assert unit == "1"
    return metric(true, predicted)


def test_dice_pooled_over_labels_and_with_background_by_hand():
    true = labels(0, 0, 0, 0, 0, 1, 1, 1, 1, 7)
    predicted = labels(0, 0, 0, 7, 0, 1, 1, 1, 0, 0)  # |A and B| and |A| + |B|: 0: 4, 11; 1: 3, 7; 7: 0, 2
    assert of_labels("dice_micro", true, predicted) == pytest.approx(2 * (3 + 0) / (7 + 2))
    assert of_labels("dice_micro_background", true, predicted) == pytest.approx(2 * (4 + 3 + 0) / (11 + 7 + 2))
    assert of_labels("dice_macro_background", true, predicted) == pytest.approx((8 / 11 + 6 / 7 + 0) / 3)


@pytest.mark.parametrize("name", LEGACY_LABEL_METRICS)
def test_dice_of_equal_wrong_and_empty_labels(name):
    true = labels(0, 0, 3, 250)
    assert of_labels(name, true, true) == 1
    assert of_labels(name, true, labels(1, 1, 0, 0)) == 0
    assert math.isnan(of_labels(name, labels(), labels()))
    assert math.isnan(of_labels(name, labels(0, 0), labels(0, 0))) == (name == "dice_micro")


def test_the_names_of_legacy_metrics_are_their_own():
    names = [*LEGACY_VOLUME_METRICS, *LEGACY_STRUCTURE_METRICS, *LEGACY_LABEL_METRICS]
    assert set(names) == LEGACY_METRICS and len(LEGACY_METRICS) == len(names)
    assert not LEGACY_METRICS & {*VOLUME_METRICS, *STRUCTURE_METRICS}
