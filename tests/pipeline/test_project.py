"""From a CT to stored X-rays: what another project finds when it pushes /ct through /xray/*/projection."""

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.project import Simulator, simulate
from pipeline.xray_file import load_xray, save_xray

AFFINE = np.array([[2.0, 0, 0, -31], [0, 3.0, 0, 12], [0, 0, 5.0, 440], [0, 0, 0, 1]])
PARALLEL = Simulator("parallel", "numpy", ("PA", "LAT"), (60, 70), 1.0, 0.0, 0.0, 60.0)
CONE = Simulator("cone", "trilinear", ("PA", "LAT"), (130, 150), 0.5, 900.0, 700.0, 60.0)
OBLIQUE = ({"name": "a", "alpha_deg": 20.0}, {"name": "b", "alpha_deg": -100.0, "beta_deg": 15.0}, "LAT")


def one_voxel(z, y, x):
    ct = np.full((4, 6, 8), -1000, np.int16)
    ct[z, y, x] = 1500
    return ct


def centre_of_mass(image):
    rows, columns = np.indices(image.shape)
    return (image * columns).sum() / image.sum(), (image * rows).sum() / image.sum()


@pytest.mark.parametrize("simulator", [PARALLEL, CONE], ids=["parallel", "cone"])
@pytest.mark.parametrize("views", [("PA", "LAT"), ("LAT", "PA"), ("AP", "RLAT", "PA"), OBLIQUE], ids=str)
@pytest.mark.parametrize("voxel", [(0, 1, 6), (3, 4, 2)])
def test_a_bright_voxel_lies_where_the_stored_matrix_says_in_every_view(simulator, views, voxel):
    """One off-centre voxel of a 4x6x8 grid of 2x3x5 mm voxels, 2.5 times water: place and mass in all views at once."""
    xray = simulate(one_voxel(*voxel), AFFINE, Simulator(**{**vars(simulator), "views": views}))
    world = AFFINE @ [voxel[2], voxel[1], voxel[0], 1.0]
    assert xray.image.shape == (len(views), *simulator.detector_px)
    for number, view in enumerate(views):
        assert xray.views[number] == (view if isinstance(view, str) else view["name"])
        u, v, w = xray.projection[number] @ world
        np.testing.assert_allclose(centre_of_mass(xray.image[number]), (u / w, v / w), atol=0.15)
        origin, step_v, step_u = xray.detector_mm[number]
        at_detector = origin + v / w * step_v + u / w * step_u
        back = xray.projection[number] @ np.append(at_detector, 1.0)
        np.testing.assert_allclose(back[:2] / back[2], (u / w, v / w), atol=1e-9)
        distance = 1.0
        if simulator.beam == "cone":
            source = xray.source_mm[number, :3]
            distance = np.linalg.norm(world[:3] - source) / np.linalg.norm(at_detector - source)
            cosine = 900.0 / np.linalg.norm(at_detector - source)
            distance = distance / cosine**0.5  # the pixel's area across the ray
        area = (np.linalg.norm(step_u) * distance) ** 2 * (cosine**2 if simulator.beam == "cone" else 1.0)
        assert xray.image[number].sum() * area == pytest.approx(2.5 * 0.02059 * 30.0, rel=0.03)


def test_the_views_turn_about_the_centre_of_the_grid():
    ct = np.full((5, 7, 9), -1000, np.int16)
    ct[2, 3, 4] = 0
    for simulator in (PARALLEL, CONE):
        for image in simulate(ct, AFFINE, simulator).image:
            rows, columns = simulator.detector_px
            np.testing.assert_allclose(centre_of_mass(image), ((columns - 1) / 2, (rows - 1) / 2), atol=1e-3)


def test_a_slab_of_water_has_its_optical_depth():
    ct = np.full((6, 20, 9), -1000, np.int16)
    ct[:, 5:15] = 0
    image = simulate(ct, AFFINE, PARALLEL).image[0]
    assert image[29:31, 33:37] == pytest.approx(10 * 3.0 * 0.02059, rel=1e-5)


def test_attributes_say_what_was_simulated():
    attributes = simulate(one_voxel(1, 1, 1), AFFINE, CONE).attributes
    assert attributes["beam"] == "cone" and attributes["sdd_mm"] == 900.0 and attributes["sod_mm"] == 700.0
    assert attributes["hu_to_mu"] == "linear-clip-v1" and attributes["energy_kev"] == 60.0
    assert attributes["mu_water_per_mm"] == pytest.approx(0.02059)
    assert "sdd_mm" not in simulate(one_voxel(1, 1, 1), AFFINE, PARALLEL).attributes


def test_a_tube_inside_the_patient_is_refused():
    with pytest.raises(UserError, match="inside or in front of the volume"):
        simulate(one_voxel(1, 1, 1), AFFINE, Simulator(**{**vars(CONE), "sod_mm": 5.0}))


def test_saved_xrays_come_back(tmp_path):
    xray = simulate(one_voxel(1, 4, 6), AFFINE, CONE)
    save_xray(tmp_path / "x.h5", xray)
    again = load_xray(tmp_path / "x.h5")
    for name in ("image", "projection", "source_mm", "detector_mm"):
        np.testing.assert_array_equal(getattr(again, name), getattr(xray, name))
    assert (again.views, again.attributes) == (xray.views, xray.attributes)
