"""The re-projection agrees with the simulator and notices what is wrong."""

import numpy as np
import pytest

from pipeline.geometry import centre_mm, make_view
from pipeline.physics.monoenergetic import hu_to_mu, mu_water_per_mm
from pipeline.projectors import get_projector
from tests.phantoms import AFFINE, labelled_phantom
from xr2ct.reprojection import best_shift, compare, project_volume, to_attenuation

FLAT = np.array([[2.0, 0, 0, -9], [0, 3, 0, 20], [0, 0, 5, 100], [0, 0, 0, 1]])
TILTED = np.array([[0.1, -2.9, 0, 40], [3.0, 0.1, 0.3, 25], [0.2, 0, -3.2, 100], [0, 0, 0, 1]])
ALL = np.ones((26, 30), bool)


@pytest.mark.parametrize("affine", [AFFINE, FLAT, TILTED], ids=["cubic", "flat", "tilted"])
@pytest.mark.parametrize("view", ["PA", "LAT", {"name": "x", "alpha_deg": 35.0, "beta_deg": -20.0}], ids=str)
@pytest.mark.parametrize("beam", ["parallel", "cone"])
def test_line_integrals_are_the_simulators_to_one_percent(beam, view, affine):
    ct_hu, _ = labelled_phantom()
    placed = make_view(
        view,
        centre_mm(ct_hu.shape, affine),
        beam=beam,
        detector_px=(26, 30),
        pixel_mm=3.0 if beam == "parallel" else 4.0,
        sdd_mm=900.0,
        sod_mm=700.0,
        offset_mm=(6.0, -3.0),
        roll_deg=5.0,
    )
    expected = get_projector(beam, "reference")(hu_to_mu(ct_hu, 60.0), affine, [placed])[0]
    volume = to_attenuation(ct_hu, mu_water_per_mm(60.0))
    found = project_volume(volume, affine, placed.projection(), (26, 30)).numpy()
    assert np.abs(found - expected).max() <= 0.01 * expected.max()
    assert np.sqrt(((found - expected) ** 2).mean()) <= 0.002 * expected.max()


def test_attenuation_is_zero_in_air_and_below():
    mu = to_attenuation(np.array([[[-1024, -1000, 0, 1000]]], np.int16), 0.02)
    np.testing.assert_allclose(mu.numpy().ravel(), [0, 0, 0.02, 0.04])


def picture(u=14.0, v=11.0):
    rows, columns = np.indices((26, 30))
    return np.exp(-((columns - u) ** 2 / 8 + (rows - v) ** 2 / 18)) + 0.3 * np.tanh(columns - u - 4)


def test_equal_images_differ_by_nothing():
    fit = compare(picture(), picture(), ALL, fitted=False)
    assert fit.relative_rms == 0 and fit.correlation == pytest.approx(1)
    assert fit.shift_px == pytest.approx((0, 0), abs=1e-9)


def test_the_difference_is_counted_in_sds_of_the_input_where_it_is_seen():
    image, seen = picture(), ALL.copy()
    seen[:, :10] = False
    wrong = image + 0.5 * image[seen].std() + 9.0 * ~seen
    assert compare(wrong, image, seen, fitted=False).relative_rms == pytest.approx(0.5)
    assert compare(wrong, image, seen, fitted=True).relative_rms == pytest.approx(0, abs=1e-9)
    assert compare(3 * image, image, ALL, fitted=True).relative_rms == pytest.approx(0, abs=1e-9)


def test_the_difference_is_counted_in_sds_of_the_input_not_of_the_reprojection():
    image = picture() - picture().mean()
    assert compare(3 * image, image, ALL, fitted=False).relative_rms == pytest.approx(2)
    assert compare(image / 4, image, ALL, fitted=False).relative_rms == pytest.approx(0.75)


@pytest.mark.parametrize("fitted", [True, False])
def test_a_constant_image_or_reprojection_correlates_with_nothing(fitted):
    image, constant = picture(), np.full(ALL.shape, 0.5)
    assert compare(constant, image, ALL, fitted=fitted).correlation == 0
    assert compare(image, constant, ALL, fitted=fitted).correlation == 0


def test_the_shift_says_how_the_reprojection_must_move():
    assert best_shift(picture(14.0, 11.0), picture(17.0, 9.0), ALL) == pytest.approx((3, -2), abs=0.15)
    assert best_shift(picture(14.0, 11.0), picture(14.5, 11.0), ALL) == pytest.approx((0.5, 0), abs=0.2)
