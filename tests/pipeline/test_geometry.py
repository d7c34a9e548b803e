"""Geometry by hand arithmetic: the numbers below come from drawings, not from the code."""

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.geometry import NAMED_VIEWS, centre_mm, corners_mm, make_view, require_in_beam

ISO = np.array([10.0, -20.0, 300.0])


def parallel(view, **changes):
    return make_view(view, ISO, beam="parallel", **{"detector_px": (30, 40), "pixel_mm": 2.0} | changes)


def cone(view, **changes):
    values = {"detector_px": (30, 40), "pixel_mm": 2.0, "sdd_mm": 1000.0, "sod_mm": 800.0}
    return make_view(view, ISO, beam="cone", **values | changes)


def pixel_of(view, point):
    u, v, w = view.projection() @ np.append(point, 1.0)
    return u / w, v / w


@pytest.mark.parametrize(
    ("name", "beam", "image_right"),
    [
        ("PA", [0, 1, 0], [-1, 0, 0]),
        ("AP", [0, -1, 0], [1, 0, 0]),
        ("LAT", [-1, 0, 0], [0, -1, 0]),
        ("RLAT", [1, 0, 0], [0, 1, 0]),
    ],
)
def test_named_views_point_where_a_radiographer_expects(name, beam, image_right):
    view = parallel(name)
    np.testing.assert_array_equal(view.source_mm, [*beam, 0])
    np.testing.assert_array_equal(view.step_u_mm, 2.0 * np.array(image_right))
    np.testing.assert_array_equal(view.step_v_mm, [0, 0, -2])


def test_a_pa_image_has_the_patients_left_on_its_right_and_the_head_up():
    left_u, _ = pixel_of(parallel("PA"), ISO + [-30, 0, 0])
    right_u, _ = pixel_of(parallel("PA"), ISO + [30, 0, 0])
    _, head_v = pixel_of(parallel("PA"), ISO + [0, 0, 24])
    assert (left_u, right_u, head_v) == (19.5 + 15, 19.5 - 15, 14.5 - 12)


def test_a_left_lateral_image_has_the_front_on_its_left():
    front_u, _ = pixel_of(parallel("LAT"), ISO + [0, 30, 0])
    back_u, _ = pixel_of(parallel("LAT"), ISO + [0, -30, 0])
    assert (front_u, back_u) == (19.5 - 15, 19.5 + 15)


def test_a_cone_magnifies_by_source_detector_over_source_point_distance():
    u, v = pixel_of(cone("PA"), ISO + [-16, -160, 32])  # 800 - 160 = 640 mm from the tube
    assert u == pytest.approx(19.5 + 16 * 1000 / 640 / 2)
    assert v == pytest.approx(14.5 - 32 * 1000 / 640 / 2)
    u, v = pixel_of(cone("LAT"), ISO + [-200, 16, 32])  # on the left: 800 + 200 mm from the tube
    assert u == pytest.approx(19.5 - 16 / 2)
    assert v == pytest.approx(14.5 - 32 / 2)


def test_tube_and_detector_stand_at_their_distances():
    view = cone("LAT")
    np.testing.assert_allclose(view.source_mm, [10 + 800, -20, 300, 1])
    centre = view.origin_mm + 14.5 * view.step_v_mm + 19.5 * view.step_u_mm
    np.testing.assert_allclose(centre, [10 - 200, -20, 300])


def test_with_both_angles_the_tilt_comes_first_and_the_turn_second():
    """Tilt the beam +y by 30 degrees towards the head: (0, cos, sin); then turn it by 90 degrees: (-cos, 0, sin)."""
    view = parallel({"name": "both", "alpha_deg": 90.0, "beta_deg": 30.0})
    np.testing.assert_allclose(view.source_mm[:3], [-np.cos(np.pi / 6), 0, 0.5], atol=1e-12)


def test_a_shadow_beside_a_wide_detector_is_refused_only_there():
    """40 columns of 2 mm but 30 rows: 35 mm aside is still seen, 35 mm up is not."""
    view = parallel("PA")
    require_in_beam(view, ISO + [[35.0, 0, 0], [36.0, 1, 1]])
    with pytest.raises(UserError, match="misses the detector"):
        require_in_beam(view, ISO + [[0.0, 0, 35], [1.0, 1, 36]])


@pytest.mark.parametrize("make", [parallel, cone])
@pytest.mark.parametrize("view", [*NAMED_VIEWS, {"name": "odd", "alpha_deg": 37.0, "beta_deg": -12.0}])
def test_pixels_project_onto_themselves_and_the_source_onto_nothing(make, view):
    placed = make(view)
    pixel, along = placed.rays()
    for v, u in ((0, 0), (3, 17), (29, 39)):
        for distance in (0.0, -250.0):
            got = pixel_of(placed, pixel[v, u] + distance * along[v, u])
            np.testing.assert_allclose(got, (u, v), atol=1e-9)
    np.testing.assert_allclose(placed.projection() @ placed.source_mm, 0, atol=1e-9)
    np.testing.assert_allclose(np.cross(placed.step_u_mm, placed.step_v_mm) @ along[15, 20] < 0, True)


def test_an_offset_detector_moves_the_picture_the_other_way():
    """10 mm to the right and 6 mm up are 5 pixels of 2 mm and -3: the isocentre appears 5 to the left and 3 lower."""
    for make in (parallel, cone):
        assert pixel_of(make("PA", offset_mm=(10.0, -6.0)), ISO) == pytest.approx((19.5 - 5, 14.5 + 3))
    moved, here = cone("LAT", offset_mm=(10.0, -6.0)), cone("LAT")
    np.testing.assert_allclose(moved.origin_mm - here.origin_mm, [0, -10, 6])  # LAT: right is the back, down the feet
    np.testing.assert_array_equal(moved.source_mm, here.source_mm)
    np.testing.assert_array_equal(moved.step_u_mm, here.step_u_mm)


def test_a_rolled_detector_turns_the_picture_counter_clockwise():
    """The patient's left, on the right of a PA image, climbs: by a quarter turn it stands above the centre."""
    left, head = ISO + [-20.0, 0, 0], ISO + [0.0, 0, 12]
    assert pixel_of(parallel("PA", roll_deg=90.0), left) == pytest.approx((19.5, 14.5 - 10))
    assert pixel_of(parallel("PA", roll_deg=90.0), head) == pytest.approx((19.5 - 6, 14.5))
    assert pixel_of(parallel("PA", roll_deg=30.0), left) == pytest.approx((19.5 + 10 * 3**0.5 / 2, 14.5 - 10 / 2))
    assert pixel_of(parallel("PA", roll_deg=-90.0), left) == pytest.approx((19.5, 14.5 + 10))
    quarter = parallel("PA", roll_deg=90.0)
    np.testing.assert_array_equal(quarter.step_u_mm, [0, 0, -2])
    np.testing.assert_array_equal(quarter.step_v_mm, [2, 0, 0])


def test_roll_is_about_the_central_ray_and_the_offset_along_the_rolled_axes():
    """The central ray meets one pixel at any roll; a point beside it turns about that pixel, magnified 1000 / 640."""
    point = ISO + [-16.0, -160.0, 0.0]
    for roll, aside, climb in ((0.0, 1.0, 0.0), (90.0, 0.0, 1.0), (210.0, -(3**0.5) / 2, -0.5)):
        view = cone("PA", roll_deg=roll, offset_mm=(10.0, -6.0))
        assert pixel_of(view, ISO) == pytest.approx((14.5, 17.5))
        assert pixel_of(view, point) == pytest.approx((14.5 + 12.5 * aside, 17.5 - 12.5 * climb))
        pixel, along = view.rays()
        np.testing.assert_allclose(pixel_of(view, pixel[3, 17] - 100 * along[3, 17]), (17, 3), atol=1e-9)


def test_centre_and_corners_of_a_sheared_grid():
    """A 4 x 6 x 8 grid (z, y, x) of 2 x 3 x 5 mm voxels whose x axis climbs 1 mm per voxel."""
    affine = np.array([[2.0, 0, 0, -31], [0, 3.0, 0, 12], [1.0, 0, 5.0, 440], [0, 0, 0, 1]])
    np.testing.assert_allclose(centre_mm((4, 6, 8), affine), [-31 + 7, 12 + 7.5, 440 + 3.5 + 7.5])
    corners = corners_mm((4, 6, 8), affine)
    assert len({tuple(corner) for corner in corners}) == 8
    np.testing.assert_allclose(corners.min(axis=0), [-31, 12, 440])
    np.testing.assert_allclose(corners.max(axis=0), [-31 + 14, 12 + 15, 440 + 7 + 15])
    np.testing.assert_allclose(corners_mm((4, 6, 8), affine, beyond=0.5).min(axis=0), [-32, 10.5, 440 - 0.5 - 2.5])


def test_oblique_views_turn_towards_the_named_ones():
    half_way = parallel({"name": "LAO", "alpha_deg": 45.0, "beta_deg": 0.0})
    np.testing.assert_allclose(
        half_way.source_mm[:3], (parallel("PA").source_mm + parallel("LAT").source_mm)[:3] / 2**0.5
    )
    cranial = parallel({"name": "up", "alpha_deg": 0.0, "beta_deg": 30.0})
    np.testing.assert_allclose(cranial.source_mm[:3], [0, np.cos(np.pi / 6), 0.5])


def test_a_parallel_matrix_is_affine_and_a_moved_world_gives_the_same_pixels():
    for make in (parallel, cone):
        here = make("LAT")
        shift = np.array([5.0, -7.0, 11.0])
        moved = make_view(
            "LAT", ISO + shift, beam="parallel" if make is parallel else "cone",
            detector_px=(30, 40), pixel_mm=2.0, sdd_mm=1000.0, sod_mm=800.0,
        )  # fmt: skip
        point = ISO + [3.0, 4.0, -5.0]
        np.testing.assert_allclose(pixel_of(here, point), pixel_of(moved, point + shift))
    np.testing.assert_array_equal(parallel("PA").projection()[2], [0, 0, 0, 1])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: cone("PA", sod_mm=1200.0), "sod_mm 1200 and sdd_mm 1000"),
        (lambda: cone("PA", sod_mm=0.0), "0 < sod_mm < sdd_mm"),
        (lambda: parallel("FRONT"), "'FRONT' is not known; expected one of: PA, LAT, AP, RLAT"),
        (lambda: make_view("PA", ISO, beam="fan", detector_px=(2, 2), pixel_mm=1.0), "expected one of: parallel, cone"),
        (lambda: require_in_beam(cone("PA"), ISO + [[0.0, -900, 0]]), "inside or in front of the volume"),
        (lambda: require_in_beam(cone("PA"), ISO + [[0.0, 250, 0]]), "detector stands inside the volume"),
        (lambda: parallel("PA", pixel_mm=float("nan")), "expected at least 1 x 1 pixels above 0 mm"),
        (lambda: cone("PA", sdd_mm=float("inf")), "sod_mm 800 and sdd_mm inf"),
        (lambda: cone("PA", sod_mm=float("nan")), "0 < sod_mm < sdd_mm"),
        (lambda: cone("PA", detector_px=(0, 40)), r"detector_px \(0, 40\) .* expected at least 1 x 1 pixels"),
        (lambda: cone("PA", pixel_mm=0.0), "above 0 mm"),
        (lambda: cone("PA", roll_deg=float("nan")), "roll_deg nan; expected finite mm and degrees"),
        (lambda: cone("PA", offset_mm=(0.0, float("inf"))), r"offset_mm \(0.0, inf\) .* expected finite"),
        (lambda: require_in_beam(cone("PA", offset_mm=(60.0, 0.0)), ISO + [[0.0, 0, 0]]), "misses the detector"),
        (lambda: parallel({"name": "a", "alpha_deg": "30"}), "an angle is '30'; expected a finite number .* quotes"),
        (lambda: parallel({"name": "a", "alpha_deg": float("nan")}), "view a: an angle is nan"),
        (lambda: parallel({"name": "a", "alpha_deg": 0.0, "beta_deg": True}), "an angle is True"),
        (lambda: parallel({"name": "a"}), "view a: an angle is None"),
        (lambda: parallel({"alpha_deg": 3.0}), "expected {name, alpha_deg, beta_deg}"),
        (lambda: parallel({"name": "a", "alpha_deg": 3.0, "gamma_deg": 1.0}), "expected {name, alpha_deg, beta_deg}"),
        (lambda: parallel({"name": "a", "alpha_deg": "x"}), "an angle is 'x'; expected a finite number of degrees"),
        (lambda: require_in_beam(parallel("PA"), ISO + [[500.0, 0, 0], [600, 0, 0]]), "misses the detector"),
    ],
)
def test_impossible_geometry_is_refused_in_words(make, words):
    with pytest.raises(UserError, match=words):
        make()
