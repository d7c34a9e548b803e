"""Geometry files mean what the simulator means; resampled images keep every point where its matrix says."""

import json

import numpy as np
import pytest
import yaml

from pipeline.geometry import centre_mm, make_view
from tests.phantoms import AFFINE, phantom_case, write_phantom_shard
from tests.xr2ct.cohort import WINDOW
from xr2ct.cases import Cases, Task, open_task
from xr2ct.errors import UserError
from xr2ct.geometry_file import crossing, read_geometry, shown_at
from xr2ct.image_fit import fit_image
from xr2ct.views import (
    Geometry,
    describe_geometry,
    named_projection,
    pixel_at,
    rays_of,
    resized,
    trained_geometry,
)

SHAPE = (20, 24, 28)
ISO = np.array([10.0, -20.0, 300.0])
POINT = np.array([7.0, -11.0, 13.0])


def posed(beam, view="PA", **changes):
    values = {"detector_px": (30, 40), "pixel_mm": 2.0, "sdd_mm": 1000.0, "sod_mm": 800.0}
    return make_view(view, changes.pop("iso", np.zeros(3)), beam=beam, **values | changes)


def trained_at(beam="cone", size=(26, 30), pixel_mm=4.0, iso=ISO):
    """A training geometry around `iso`, moved to 0 as a checkpoint's is."""
    views = [posed(beam, name, detector_px=size, pixel_mm=pixel_mm, iso=iso) for name in ("PA", "LAT")]
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = iso - centre_mm(SHAPE, affine)
    known = {
        "views": ["PA", "LAT"],
        "projection": [view.projection().tolist() for view in views],
        "detector_px": list(size),
        "affine": affine.tolist(),
        "shape": list(SHAPE),
        "attrs": {},
    }
    return trained_geometry(
        {"geometry": known}, Task("cone", ("PA", "LAT"), ("background",), SHAPE, WINDOW), "model.pt"
    )


def write(folder, values):
    path = folder / "views.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return path


def read(folder, values, size=(30, 40)):
    return read_geometry(write(folder, values), {"PA": size, "LAT": size}, trained_at())


CONE = {"beam": "cone", "views": ["PA", "LAT"], "sdd_mm": 1000, "sod_mm": 800, "pixel_mm": 2, "detector_px": [30, 40]}


@pytest.mark.parametrize("beam", ["parallel", "cone"])
@pytest.mark.parametrize("angles", [("PA", 0, 0), ("LAT", 90, 0), ("AP", 180, 0), ("RLAT", -90, 0), ("x", 35, -20)])
@pytest.mark.parametrize(("offset_mm", "roll_deg"), [((0.0, 0.0), 0.0), ((7.0, -5.0), 12.0)])
def test_named_parameters_are_the_simulators(beam, angles, offset_mm, roll_deg):
    name, (alpha_deg, beta_deg) = angles[0], map(float, angles[1:])
    view = {"name": name, "alpha_deg": alpha_deg, "beta_deg": beta_deg}
    expected = posed(beam, view, offset_mm=offset_mm, roll_deg=roll_deg)
    found = named_projection(
        beam=beam,
        alpha_deg=alpha_deg,
        beta_deg=beta_deg,
        pixel_mm=2.0,
        size=(30, 40),
        sdd_mm=1000.0,
        sod_mm=800.0,
        offset_mm=offset_mm,
        roll_deg=roll_deg,
    )
    np.testing.assert_allclose(found, expected.projection(), atol=1e-12)


@pytest.mark.parametrize("beam", ["parallel", "cone"])
def test_tube_and_detector_are_found_again_from_the_matrix(beam):
    view = posed(beam, {"name": "x", "alpha_deg": 35, "beta_deg": -20}, offset_mm=(7.0, -5.0), roll_deg=12.0, iso=ISO)
    source, detector = rays_of(view.projection())
    np.testing.assert_allclose(source, view.source_mm, atol=1e-9)
    np.testing.assert_allclose(detector[1:], view.detector_mm()[1:], atol=1e-9)
    away = detector[0] - view.origin_mm
    if beam == "cone":
        np.testing.assert_allclose(away, 0, atol=1e-9)
    else:  # anywhere along the beam
        np.testing.assert_allclose(np.cross(away, view.source_mm[:3]), 0, atol=1e-9)


def test_a_file_of_names_and_one_of_matrices_say_the_same(tmp_path):
    named = read(tmp_path, CONE)
    iso = np.array([5.0, 6.0, 7.0])
    matrices = {name: (-3 * posed("cone", name, iso=iso).projection()).tolist() for name in ("LAT", "PA")}
    other = read(tmp_path, {"projection": matrices})
    assert named.views == other.views == ("PA", "LAT")
    np.testing.assert_allclose(centre_mm(SHAPE, named.affine), 0, atol=1e-9)
    np.testing.assert_allclose(centre_mm(SHAPE, other.affine), iso, atol=1e-6)  # where the middle rays cross
    for one, two in zip(named.projection, other.projection, strict=True):
        np.testing.assert_allclose(pixel_at(one, POINT)[0], pixel_at(two, POINT + iso)[0], atol=1e-6)
        assert (two @ [*iso, 1])[2] > 0


def test_matrices_of_a_parallel_beam_are_scaled_to_w_1(tmp_path):
    """A matrix is known up to a factor; what is projected through it later takes w = 1 for granted."""
    expected = [posed("parallel", name, iso=ISO).projection() for name in ("PA", "LAT")]
    given = {name: (-3 * matrix).tolist() for name, matrix in zip(("PA", "LAT"), expected, strict=True)}
    np.testing.assert_allclose(read(tmp_path, {"projection": given}).projection, expected, atol=1e-9)


def test_angles_and_distances_of_one_view_overrule_the_common_ones(tmp_path):
    view = {"name": "LAT", "alpha_deg": 85, "sdd_mm": 1800, "sod_mm": 1500}
    found = read(tmp_path, CONE | {"views": ["PA", view]})
    expected = posed("cone", {"name": "LAT", "alpha_deg": 85}, sdd_mm=1800.0, sod_mm=1500.0)
    np.testing.assert_allclose(found.projection[1], expected.projection(), atol=1e-12)
    np.testing.assert_allclose(found.projection[0], posed("cone").projection(), atol=1e-12)


def test_detector_px_may_count_other_pixels_than_the_image(tmp_path):
    found = read(tmp_path, CONE, size=(60, 80))
    (u, v), per_mm = pixel_at(found.projection[0], POINT)
    (u_0, v_0), per_mm_0 = pixel_at(posed("cone").projection(), POINT)
    assert (u, v) == pytest.approx((2 * u_0 + 0.5, 2 * v_0 + 0.5))  # pixel 0 became pixels 0 and 1
    np.testing.assert_allclose(per_mm, 2 * per_mm_0)


def test_the_grid_goes_where_the_file_says(tmp_path):
    moved = read(tmp_path, CONE | {"grid": {"centre_mm": [10, 20, -30]}})
    np.testing.assert_allclose(centre_mm(SHAPE, moved.affine), [10, 20, -30])
    np.testing.assert_allclose(moved.affine[:3, :3], 3 * np.eye(3))
    affine = [[0, 3.02, 0, -35], [3, 0, 0, -35], [0, 0, -2.98, 40], [0, 0, 0, 1]]  # turned, its voxels nearly the same
    assert np.array_equal(read(tmp_path, CONE | {"grid": {"affine": affine}}).affine, affine)


def test_without_a_file_the_images_show_the_trained_detector():
    trained = trained_at()
    found = shown_at(trained, {"PA": (26, 30), "LAT": (52, 60)})
    assert np.array_equal(found.projection[0], trained.projection[0])
    at, _ = pixel_at(found.projection[1], POINT)
    np.testing.assert_allclose(at, 2 * pixel_at(trained.projection[1], POINT)[0] + 0.5)
    with pytest.raises(UserError, match="view PA has 26 x 26 pixels .*proportions of the 26 x 30 .*--geometry"):
        shown_at(trained, {"PA": (26, 26), "LAT": (26, 30)})


def test_a_checkpoint_keeps_the_geometry_of_its_first_case_around_zero(tmp_path):
    path = write_phantom_shard(tmp_path / "s.h5", [phantom_case("p")])
    task, shards = open_task([path], "cone", WINDOW)
    example = Cases(shards, "cone")[0]
    described = json.loads(json.dumps(describe_geometry(example)))
    found = trained_geometry({"geometry": described}, task, "model.pt")
    assert (found.views, found.sizes, found.shape) == (("PA", "LAT"), ((26, 30),) * 2, SHAPE)
    assert found.attrs["energy_kev"] == 60 and found.attrs["beam"] == "cone"
    np.testing.assert_allclose(centre_mm(SHAPE, found.affine), 0, atol=1e-12)
    voxel = [3.0, 20.0, 11.0, 1.0]
    for one, two in zip(found.projection, example.xray.projection, strict=True):
        np.testing.assert_allclose(one @ found.affine @ voxel, two @ AFFINE @ voxel, atol=1e-9)
    with pytest.raises(UserError, match="model.pt: this checkpoint does not hold the geometry.*Train it again"):
        trained_geometry({}, task, "model.pt")


def spot(size, u, v, width):
    rows, columns = np.indices(size)
    return np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * width**2))


def centroid(image):
    rows, columns = np.indices(image.shape)
    return np.array([(image * columns).sum(), (image * rows).sum()]) / image.sum()


@pytest.mark.parametrize("pixel_mm", [1.0, 3.0, 4.0, 7.0])
@pytest.mark.parametrize("offset_mm", [(0.0, 0.0), (12.0, -8.0)])
def test_a_resampled_image_shows_a_point_where_its_new_matrix_says(pixel_mm, offset_mm):
    trained = trained_at(size=(40, 50))
    size = tuple(round(n * 4.0 / pixel_mm) for n in (46, 56))
    view = posed("cone", detector_px=size, pixel_mm=pixel_mm, offset_mm=offset_mm)
    (u, v), _ = pixel_at(view.projection(), POINT)
    fitted = fit_image(
        spot(size, u, v, 8 / pixel_mm),
        view.projection(),
        np.zeros(3),
        trained_projection=trained.projection[0],
        trained_centre_mm=np.zeros(3),
        size=(40, 50),
    )
    assert fitted.image.shape == (40, 50)
    np.testing.assert_allclose(centroid(fitted.image), pixel_at(fitted.projection, POINT)[0], atol=0.02)
    np.testing.assert_allclose(
        pixel_at(fitted.projection, np.zeros(3))[0], pixel_at(trained.projection[0], np.zeros(3))[0], atol=0.51
    )
    np.testing.assert_allclose(
        pixel_at(fitted.projection, np.zeros(3))[1], pixel_at(trained.projection[0], np.zeros(3))[1], rtol=0.01
    )


def test_shrinking_averages_what_falls_together():
    trained = trained_at()
    view = posed("cone", detector_px=(104, 120), pixel_mm=1.0)
    noise = np.random.default_rng(0).normal(5.0, 1.0, (104, 120))
    centre = {"trained_projection": trained.projection[0], "trained_centre_mm": np.zeros(3), "size": (26, 30)}
    fitted = fit_image(noise, view.projection(), np.zeros(3), **centre)
    assert fitted.image.mean() == pytest.approx(5.0, abs=0.05)
    assert fitted.image[1:-1, 1:-1].std() < 0.2  # of 4 x 4 pixels and what of their neighbours a triangle takes in


def test_an_image_as_trained_is_not_touched():
    trained, image = trained_at(), np.random.default_rng(0).normal(size=(26, 30))
    centre = {"trained_projection": trained.projection[0], "trained_centre_mm": np.zeros(3), "size": (26, 30)}
    fitted = fit_image(image, trained.projection[0], np.zeros(3), **centre)
    assert np.array_equal(fitted.image, image) and fitted.seen.all()
    np.testing.assert_allclose(fitted.projection, trained.projection[0])


def test_what_lies_beyond_the_image_is_empty_and_known():
    trained = trained_at()
    view = posed("cone", detector_px=(10, 30), pixel_mm=4.0)
    centre = {"trained_projection": trained.projection[0], "trained_centre_mm": np.zeros(3), "size": (26, 30)}
    fitted = fit_image(np.ones((10, 30)), view.projection(), np.zeros(3), **centre)
    assert np.array_equal(np.flatnonzero(fitted.seen.all(axis=1)), np.arange(8, 18))
    assert np.array_equal(fitted.image, fitted.seen.astype(float))


def test_pixels_reach_half_a_pixel_beyond_their_centres():
    """Four times fewer pixels that show the whole trained detector: none of it is unseen."""
    trained = trained_at(size=(24, 32))
    few = resized(trained.projection[0], (24, 32), (6, 8))
    centre = {"trained_projection": trained.projection[0], "trained_centre_mm": np.zeros(3), "size": (24, 32)}
    fitted = fit_image(np.ones((6, 8)), few, np.zeros(3), **centre)
    assert fitted.seen.all() and fitted.zoom == pytest.approx((0.25, 0.25))


def test_pixels_that_differ_in_one_direction_only_are_resampled():
    trained = trained_at()
    wide = resized(trained.projection[0], (26, 30), (26, 60))
    centre = {"trained_projection": trained.projection[0], "trained_centre_mm": np.zeros(3), "size": (26, 30)}
    fitted = fit_image(np.ones((26, 60)), wide, np.zeros(3), **centre)
    assert fitted.zoom == pytest.approx((2.0, 1.0)) and fitted.seen.all()
    np.testing.assert_allclose(fitted.projection, trained.projection[0], atol=1e-9)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (CONE | {"sdd": 1}, "key 'sdd' is not known.*Did you mean 'sdd_mm'"),
        (CONE | {"beam": "fan"}, "beam is 'fan'; expected parallel or cone"),
        (CONE | {"views": ["PA"]}, "views are PA; expected also LAT"),
        (CONE | {"views": []}, r"views is \[\]; expected a list such as"),
        (CONE | {"views": ["PA", "LAT", "PA"]}, "view PA is given twice"),
        (CONE | {"views": ["PA", {"name": "LAT", "tilt": 3}]}, "key 'tilt' is not known"),
        (CONE | {"sod_mm": 1200}, "sod_mm 1200, sdd_mm 1000; expected 0 < sod_mm < sdd_mm"),
        (CONE | {"pixel_mm": 0}, "pixel_mm is 0; expected a positive number"),
        (CONE | {"pixel_mm": float("nan")}, "pixel_mm is nan; expected a positive number"),
        (CONE | {"sdd_mm": 10**400}, "sdd_mm is 1000000.*; expected a finite number"),
        (CONE | {"grid": {"centre_mm": [0, 0, 10**400]}}, "grid centre_mm is .*expected 3 finite numbers"),
        ("sdd_mm: 2026-13-45", r"is not YAML \(ValueError\)"),
        (CONE | {"detector_px": [30]}, r"detector_px is \[30\]; expected two whole numbers"),
        (CONE | {"detector_px": [40, 30]}, "30 x 40 pixels .*expected the proportions of the 40 x 30 of detector_px"),
        (CONE | {"grid": {"center": [0, 0, 0]}}, "key 'center' is not known"),
        (CONE | {"grid": {"centre_mm": [0, 0]}}, "grid centre_mm is .*expected 3 finite numbers"),
        (
            CONE | {"grid": {"affine": [[0, -2, 0, 25], [3, 0, 0, -35], [0, 0, 4, -40], [0, 0, 0, 1]]}},
            r"grid affine: voxels of 3 x 2 x 4 mm; expected 3 x 3 x 3 mm, which the model was trained with",
        ),
        (
            CONE | {"grid": {"affine": [[3, 0, 0, -40], [0, 3.04, 0, -35], [0, 0, 3, -30], [0, 0, 0, 1]]}},
            r"grid affine: voxels of 3 x 3.04 x 3 mm",
        ),
        (
            CONE | {"grid": {"affine": [[-3, 0, 0, 40], [0, 3, 0, -35], [0, 0, 3, -30], [0, 0, 0, 1]]}},
            r"grid affine: the grid is mirrored; expected the handedness the model was trained with",
        ),
        (CONE | {"grid": {"centre_mm": [0, 900, 0]}}, "appears at columns|tube stands inside"),
        (CONE | {"offset_mm": [500, 0]}, "view PA: the volume appears at columns"),
        (CONE | {"sod_mm": 20}, "view PA: the tube stands inside the reconstructed volume"),
        ({"projection": {"PA": [[1, 2], [3, 4]]}}, "projection of PA is .*expected 3 x 4 finite numbers"),
        ({"projection": {"PA": np.zeros((3, 4)).tolist()}}, "projection of PA maps no volume onto a plane"),
        ({"projection": {"PA": posed("cone").projection().tolist()}}, "views are PA; expected also LAT"),
        (
            {"projection": dict.fromkeys(("PA", "LAT"), posed("cone").projection().tolist())},
            "all matrices look the same",
        ),
        ("a: [", "is not YAML"),
        ("- 1", "holds list; expected keys"),
    ],
)
def test_a_wrong_file_is_refused_in_words(values, said, tmp_path):
    with pytest.raises(UserError, match=f"views.yaml: .*({said})"):
        read(tmp_path, values)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no.yaml: cannot be read"):
        read_geometry(tmp_path / "no.yaml", {}, trained_at())


def test_middle_rays_of_a_parallel_pair_cross_at_the_isocentre():
    projection = np.stack([posed("parallel", name, iso=ISO).projection() for name in ("PA", "LAT")])
    np.testing.assert_allclose(crossing(projection, [(30, 40)] * 2), ISO, atol=1e-6)
    assert isinstance(trained_at(), Geometry)
