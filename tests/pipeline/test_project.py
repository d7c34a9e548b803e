"""From a CT to stored X-rays: what another project finds when it pushes /ct through /xray/*/projection."""

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.project import simulate
from pipeline.simulators import Simulator
from pipeline.xray_file import load_xray, save_xray

AFFINE = np.array([[2.0, 0, 0, -31], [0, 3.0, 0, 12], [0, 0, 5.0, 440], [0, 0, 0, 1]])
PARALLEL = Simulator("parallel", "parallel", ("PA", "LAT"), (60, 70), 1.0, 0.0, 0.0, 60.0)
CONE = Simulator("cone", "joseph", ("PA", "LAT"), (130, 150), 0.5, 900.0, 700.0, 60.0)
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


REALISTIC = Simulator(**{**vars(CONE), "physics": "realistic", "detector_px": (40, 44), "pixel_mm": 2.0})


def body():
    """Off-centre ellipse of tissue with a bone and an air cavity, 2 x 3 x 5 mm voxels."""
    z, y, x = np.indices((8, 24, 30))
    ct = np.full((8, 24, 30), -1000, np.int16)
    ct[((x - 13) / 11) ** 2 + ((y - 12) / 9) ** 2 < 1] = 30
    ct[((x - 9) / 3) ** 2 + ((y - 12) / 3) ** 2 < 1] = 900
    ct[(abs(x - 19) < 3) & (abs(y - 11) < 3) & (z > 2)] = -900
    return ct


def test_realistic_xrays_are_the_detectors_reading_of_the_areal_densities():
    """Through the one-pass kernel and through exact integrals of one volume per material; and the beam hardens."""
    quiet = Simulator(**{**vars(REALISTIC), "photons": 0.0, "psf_px": 0.0})
    fast = simulate(body(), AFFINE, quiet).image
    exact = simulate(body(), AFFINE, Simulator(**{**vars(quiet), "backend": "reference"})).image
    assert np.abs(fast - exact).mean() < 2e-3 * exact.max()
    assert fast.min() > -1e-6 and fast.max() > 1.5
    # A polychromatic beam hardens: behind thick matter the reading is higher than one at the mean energy of thin matter.
    thin, thick = np.full((8, 24, 30), -1000, np.int16), np.full((8, 24, 30), -1000, np.int16)
    thin[:, 11:13], thick[:, 2:22] = 30, 30
    through = [simulate(ct, AFFINE, quiet).image[0, 20, 22] for ct in (thin, thick)]
    assert 8.5 < through[1] / through[0] < 9.8  # ten times the tissue, less than ten times the line integral


def test_noise_and_monte_carlo_belong_to_case_view_and_seed():
    noisy = Simulator(**{**vars(REALISTIC), "photons": 5000.0, "scatter": "montecarlo", "scatter_photons": 20_000})
    first = simulate(body(), AFFINE, noisy, case="a", seed=3)
    np.testing.assert_array_equal(first.image, simulate(body(), AFFINE, noisy, case="a", seed=3).image)
    for other in ({"case": "b", "seed": 3}, {"case": "a", "seed": 4}):
        assert (simulate(body(), AFFINE, noisy, **other).image != first.image).mean() > 0.5
    alone = simulate(body(), AFFINE, Simulator(**{**vars(noisy), "views": ("LAT",)}), case="a", seed=3)
    np.testing.assert_array_equal(alone.image[0], first.image[1])
    assert first.attributes["scatter_photons"] == 20_000 and first.attributes["seed"] == 3


@pytest.mark.parametrize("scatter", ["kernel", "montecarlo"])
def test_scatter_brightens_and_a_grid_takes_it_back(scatter):
    clean = Simulator(**{**vars(REALISTIC), "photons": 0.0})
    veiled = Simulator(**{**vars(clean), "scatter": scatter, "scatter_photons": 60_000})
    grid = Simulator(**{**vars(veiled), "grid": "r10"})
    without, with_scatter, behind_grid = (simulate(body(), AFFINE, one).image.mean() for one in (clean, veiled, grid))
    assert with_scatter < behind_grid < without


def test_realistic_attributes_say_what_was_simulated():
    attributes = simulate(body(), AFFINE, Simulator(**{**vars(REALISTIC), "kvp": 120.0}), seed=9).attributes
    wanted = {"physics": "realistic", "spectrum": "120KV_AL43", "materials": "deepdrr-v1", "photons": 100_000.0}
    assert wanted.items() <= attributes.items()
    assert attributes["mean_energy_kev"] == pytest.approx(57.6, abs=0.3) and attributes["grid"] == "none"


def test_deepdrr_is_asked_only_for_what_it_does():
    wanted = {**vars(REALISTIC), "backend": "deepdrr"}
    with pytest.raises(UserError, match=r"scatter is 'kernel' with backend 'deepdrr'; expected 'none'"):
        Simulator(**{**wanted, "scatter": "kernel"})
    with pytest.raises(UserError, match=r"physics is 'monoenergetic' with backend 'deepdrr'"):
        Simulator(**{**wanted, "physics": "monoenergetic"})
    with pytest.raises(UserError, match="deepdrr finds no NVIDIA GPU|deepdrr needs|not installed"):
        simulate(body(), AFFINE, Simulator(**wanted))
