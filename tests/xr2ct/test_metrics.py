"""Metrics against hand arithmetic and, for SSIM, scikit-image."""

import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from xr2ct.metrics.cosine import cosine
from xr2ct.metrics.dice import dice
from xr2ct.metrics.mae import mae
from xr2ct.metrics.mse import mse
from xr2ct.metrics.psnr import psnr
from xr2ct.metrics.region import REGION_METRICS, compare_regions
from xr2ct.metrics.registry import STRUCTURE_METRICS, VOLUME_METRICS, compare_structures, compare_volumes
from xr2ct.metrics.ssim import ssim
from xr2ct.metrics.surface import border_distances, chamfer, hd95
from xr2ct.metrics.window import Window

EMPTY = np.zeros((0, 3, 2))
SPACING_XYZ = np.diag([2.0, 3.0, 5.0, 1.0])


def volumes(shape=(14, 17, 12), seed=0):
    random = np.random.default_rng(seed)
    true = random.random(shape)
    return true, np.clip(true + 0.1 * random.standard_normal(shape), 0, 1)


def mask(*voxels_zyx, shape=(4, 6, 8)):
    """A mask of single voxels."""
    out = np.zeros(shape, bool)
    for voxel in voxels_zyx:
        out[voxel] = True
    return out


def test_psnr_by_hand():
    true = np.zeros((2, 3, 4))
    predicted = true.copy()
    predicted[1, 2, 3] = 0.6  # MSE = 0.36 / 24 = 0.015
    assert psnr(true, predicted, data_range=1.0) == pytest.approx(-10 * math.log10(0.015))
    assert psnr(true, predicted, data_range=2.0) - psnr(true, predicted, data_range=1.0) == pytest.approx(
        6.0206, abs=1e-4
    )


def test_psnr_of_equal_and_empty_volumes():
    true, _ = volumes()
    assert psnr(true, true, data_range=1.0) == math.inf
    assert math.isnan(psnr(EMPTY, EMPTY, data_range=1.0))


def test_the_data_range_must_be_named():
    true, predicted = volumes()
    for metric in (psnr, ssim):
        with pytest.raises(TypeError):
            metric(true, predicted)


@pytest.mark.parametrize("data_range", [1.0, 2.0])
@pytest.mark.parametrize("shape", [(14, 17, 12), (11, 11, 11), (11, 25, 13)])
def test_ssim_agrees_with_scikit_image(shape, data_range):
    true, predicted = volumes(shape)
    oracle = structural_similarity(
        true, predicted, data_range=data_range, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(true, predicted, data_range=data_range) == pytest.approx(oracle, abs=1e-12)


def test_ssim_of_constant_volumes_by_hand():
    true, predicted = np.full((11, 12, 13), 0.2), np.full((11, 12, 13), 0.8)
    assert ssim(true, predicted, data_range=1.0) == pytest.approx((2 * 0.16 + 1e-4) / (0.04 + 0.64 + 1e-4))


def test_ssim_of_equal_and_too_small_volumes():
    true, _ = volumes()
    assert ssim(true, true, data_range=1.0) == pytest.approx(1.0)
    assert math.isnan(ssim(true[:10], true[:10], data_range=1.0))


def test_mae_by_hand():
    true = np.zeros((2, 3, 4))
    predicted = true.copy()
    predicted[0, 1, 2], predicted[1, 0, 0] = -30.0, 54.0
    assert mae(true, predicted) == pytest.approx(84 / 24)
    assert mae(true, true) == 0
    assert math.isnan(mae(EMPTY, EMPTY))


def test_mse_by_hand():
    true = np.zeros((2, 3, 4))
    predicted = true.copy()
    predicted[0, 1, 2], predicted[1, 0, 0] = -30.0, 54.0
    assert mse(true, predicted) == pytest.approx((900 + 2916) / 24)
    assert mse(true, true) == 0
    assert math.isnan(mse(EMPTY, EMPTY))


def test_cosine_by_hand():
    true, predicted = np.zeros((2, 3, 4)), np.zeros((2, 3, 4))
    true[0, 1, 2], true[1, 0, 0] = 3.0, 4.0
    predicted[1, 0, 0], predicted[1, 2, 3] = 2.0, 1.5
    assert cosine(true, predicted) == pytest.approx(8 / (5 * 2.5))
    assert cosine(true, 7 * true) == pytest.approx(1) and cosine(true, -true) == pytest.approx(-1)
    assert math.isnan(cosine(true, 0 * true)) and math.isnan(cosine(EMPTY, EMPTY))


def test_dice_by_hand():
    a, b = mask((0, 0, 0), (1, 2, 3), (3, 5, 7)), mask((1, 2, 3), (3, 5, 6))
    assert dice(a, b) == pytest.approx(2 * 1 / (3 + 2))
    assert dice(a, a) == 1
    assert dice(a, mask()) == 0
    assert math.isnan(dice(mask(), mask()))


@pytest.mark.parametrize(
    ("other", "millimetres"),
    [((1, 2, 4), 2.0), ((1, 3, 3), 3.0), ((2, 2, 3), 5.0), ((2, 3, 5), math.sqrt(25 + 9 + 16))],
)
def test_distances_use_the_spacing_of_their_axis(other, millimetres):
    distances = border_distances(mask((1, 2, 3)), mask(other), SPACING_XYZ)
    assert hd95(distances) == pytest.approx(millimetres)
    assert chamfer(distances) == pytest.approx(millimetres)


def test_distances_follow_a_sheared_affine():
    sheared = SPACING_XYZ.copy()
    sheared[0, 2] = 12.0  # a step along z also moves 12 mm along world x
    assert hd95(border_distances(mask((1, 2, 3)), mask((2, 2, 3)), sheared)) == pytest.approx(13.0)


def test_hd95_and_chamfer_of_unequal_sets_by_hand():
    # predicted: one voxel; true: the same voxel and two more, 2 and 8 mm away along x.
    true, predicted = mask((1, 2, 3), (1, 2, 4), (1, 2, 7)), mask((1, 2, 3))
    distances = border_distances(true, predicted, SPACING_XYZ)
    assert sorted(distances.true_to_predicted_mm) == pytest.approx([0, 2, 8])
    assert distances.predicted_to_true_mm == pytest.approx([0])
    assert hd95(distances) == pytest.approx(2 + 0.9 * (8 - 2))  # rank 0.95 * 2 = 1.9 lies between the 2nd and the 3rd
    assert hd95(border_distances(predicted, true, SPACING_XYZ)) == hd95(distances)
    assert chamfer(distances) == pytest.approx((10 / 3 + 0) / 2)


def test_only_the_border_counts():
    block = np.zeros((7, 7, 7), bool)
    block[1:6, 1:6, 1:6] = True
    hollow = block.copy()
    hollow[3, 3, 3] = False  # its 6 neighbours become border, 1 mm from the hole, 1 voxel from the outer border
    distances = border_distances(block, hollow, np.eye(4))
    assert distances.true_to_predicted_mm.size == 125 - 27
    assert distances.predicted_to_true_mm.size == 125 - 27 + 6
    assert sorted(distances.predicted_to_true_mm)[-6:] == pytest.approx([1] * 6)


def test_a_mask_cut_by_the_volume_has_its_border_there():
    full = np.ones((3, 4, 5), bool)
    assert border_distances(full, full, np.eye(4)).true_to_predicted_mm.size == 3 * 4 * 5 - 1 * 2 * 3


def test_distances_of_equal_and_empty_masks():
    a = mask((1, 2, 3), (2, 2, 3))
    same = border_distances(a, a, SPACING_XYZ)
    assert hd95(same) == chamfer(same) == 0
    for pair in ((a, mask()), (mask(), a), (mask(), mask())):
        nothing = border_distances(*pair, SPACING_XYZ)
        assert math.isnan(hd95(nothing)) and math.isnan(chamfer(nothing))


def test_the_window_clips_before_comparing():
    true = np.full((11, 12, 13), -1024, np.int16)
    predicted = np.full((11, 12, 13), -1000, np.int16)
    predicted[0, 0, 0] = 3000
    window = Window(-1000.0, 1500.0)
    found = compare_volumes(true, predicted, window)
    assert found["mae_window-1000to1500"] == pytest.approx(2500 / true.size)
    assert found["psnr_window-1000to1500_range1"] == pytest.approx(10 * math.log10(true.size))
    assert window.to_unit(predicted)[0, 0, 0] == 1 and window.to_unit(true).max() == 0


def test_regions_are_compared_apart_by_hand():
    true, predicted = np.zeros((2, 3, 4), np.int16), np.zeros((2, 3, 4), np.int16)
    inside = mask((0, 1, 2), (1, 0, 0), shape=(2, 3, 4))
    predicted[0, 1, 2], predicted[1, 2, 3] = 100, 2000  # clipped to 1500; the other inside voxel is right
    found = compare_regions(true, predicted, {"inside": inside, "outside": ~inside}, Window(-1000.0, 1500.0))
    assert found == {
        "psnr-inside_window-1000to1500_range1": pytest.approx(-10 * math.log10(0.04**2 / 2)),
        "psnr-outside_window-1000to1500_range1": pytest.approx(-10 * math.log10(0.6**2 / 22)),
        "mae-inside_window-1000to1500": pytest.approx(50),
        "mae-outside_window-1000to1500": pytest.approx(1500 / 22),
    }
    nothing = compare_regions(true, predicted, {"inside": ~inside & inside, "outside": inside}, Window(-1000.0, 1500.0))
    assert [math.isnan(value) for value in nothing.values()] == [True, False, True, False]
    assert set(found) == {name.format(window=Window(-1000.0, 1500.0)) for name in REGION_METRICS}


def test_names_carry_convention_and_range():
    true, predicted = volumes()
    assert list(compare_volumes(true, predicted, Window(-1000.0, 1500.0))) == [
        "psnr_window-1000to1500_range1",
        "ssim3d_gauss11_sigma1.5_window-1000to1500_range1",
        "mae_window-1000to1500",
        "mse_window-1000to1500",
        "cosine_window-1000to1500_range1",
    ]
    assert set(STRUCTURE_METRICS) == set(compare_structures(mask((1, 2, 3)), mask((1, 2, 3)), SPACING_XYZ))


@pytest.mark.parametrize("name", VOLUME_METRICS)
def test_every_volume_metric_sees_one_changed_voxel_and_is_symmetric(name):
    _, metric = VOLUME_METRICS[name]
    true = np.random.default_rng(1).integers(-900, 1400, (13, 12, 14)).astype(np.int16)
    changed = true.copy()
    changed[6, 5, 7] += 60
    window = Window(-1000.0, 1500.0)
    assert metric(true, changed, window) != metric(true, true, window)
    assert metric(true, changed, window) == pytest.approx(metric(changed, true, window))
