"""Pictures by arithmetic: every step on numbers small enough to do by hand."""

import numpy as np
import pytest

from pipeline.display import anatomy_window, clahe, invert, neg_log, percentile_window, to_8bit, window
from pipeline.errors import UserError


def test_neg_log_of_the_open_field_is_zero_and_of_a_tenth_is_ln_10():
    got = neg_log(np.array([[500.0, 50.0], [1000.0, 0.0]]), 500.0)
    np.testing.assert_allclose(got, [[0.0, 2.302585093], [-0.693147181, 13.815510558]], rtol=1e-9)
    assert neg_log(np.array([[0.0]]), 1.0, floor=np.exp(-3.0))[0, 0] == pytest.approx(3.0)


@pytest.mark.parametrize("i0", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_open_field_is_refused(i0):
    with pytest.raises(UserError, match="expected the positive signal of the open field"):
        neg_log(np.ones((2, 2)), i0)


def test_a_window_is_linear_between_black_and_white_and_dense_is_bright():
    got = window(np.array([[-1.0, 1.0, 2.0], [3.0, 4.0, 9.0]]), 1.0, 4.0)
    np.testing.assert_allclose(got, [[0, 0, 1 / 3], [2 / 3, 1, 1]])
    with pytest.raises(UserError, match="display window 4 to 4; expected the value shown black first"):
        window(np.ones((2, 2)), 4.0, 4.0)


def test_percentiles_leave_out_that_many_pixels():
    image = np.arange(201.0)[::-1].reshape(3, 67)
    assert percentile_window(image, 5.0, 90.0) == (10.0, 180.0)
    assert percentile_window(image) == (2.0, 199.0)
    assert percentile_window(np.full((2, 2), 3.0)) == (3.0, 4.0)
    with pytest.raises(UserError, match="percentiles 90 and 5; expected 0 <= low < high <= 100"):
        percentile_window(image, 90.0, 5.0)


def test_the_open_field_takes_no_grey_levels():
    """Nine tenths air, then 101 values from 2 to 4: the window is theirs, 1 % from their lower end."""
    image = np.concatenate([np.zeros(909), np.linspace(2.0, 4.0, 101)]).reshape(10, 101)
    assert anatomy_window(image) == pytest.approx((2.02, 3.99))
    noisy = image + np.where(image == 0, -0.5, 0.0)
    assert anatomy_window(noisy) == pytest.approx((2.02, 3.99))
    assert anatomy_window(np.zeros((4, 4))) == (0.0, 1.0)


def test_eight_bits_are_rounded_and_cut():
    got = to_8bit(np.array([[-0.1, 0.0, 0.5 / 255 + 1e-9], [127.4 / 255, 1.0, 1.2]]))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, [[0, 0, 1], [127, 255, 255]])
    np.testing.assert_allclose(invert(np.array([[0.0, 0.25]])), [[1.0, 0.75]])


def test_clahe_spreads_a_faint_pattern_keeps_its_order_and_leaves_a_constant():
    """A ramp from 0.40 to 0.45 beside a bright stripe: its own tiles get more contrast, brighter stays brighter."""
    unit = np.tile(np.linspace(0.40, 0.45, 64), (64, 1))
    unit[:, 60:] = 1.0
    got = clahe(unit)
    assert got.min() >= 0 and got.max() <= 1
    assert np.ptp(got[:, 8:40]) > 2 * np.ptp(unit[:, 8:40])
    assert (np.diff(got[32, 2:56:12]) > 0).all()
    flat = np.full((16, 24), 0.3)
    np.testing.assert_array_equal(clahe(flat), flat)


def test_clahe_does_not_change_its_input_and_limits_contrast():
    unit = np.random.default_rng(0).normal(0.5, 0.01, (48, 80))
    unit[0, 0], unit[47, 79] = 0.0, 1.0
    before = unit.copy()
    strong, weak = clahe(unit, clip_limit=0.5), clahe(unit, clip_limit=0.01)
    np.testing.assert_array_equal(unit, before)
    assert strong.std() > 2 * weak.std()
    assert (clahe(unit, tiles=2) != clahe(unit, tiles=8)).any()
