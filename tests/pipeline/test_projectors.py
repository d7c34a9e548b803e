"""One suite for every projector, with and without its C kernels: closed forms and laws, in more than one view."""

import importlib.util
from itertools import product

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from pipeline.errors import UserError
from pipeline.geometry import View, make_view
from pipeline.native import has_kernels
from pipeline.physics.materials import DECOMPOSITIONS, MATERIALS, decompose
from pipeline.physics.monoenergetic import hu_to_mu
from pipeline.projectors import PROJECTORS, get_projector
from pipeline.projectors.columns import steep
from pipeline.projectors.from_hu import areal_densities, attenuation_integrals
from pipeline.projectors.rays import grid_views

_OPTIONAL = {"astra": "astra", "cil": "cil"}
_ANY_POSE = ("reference", "siddon", "joseph", "parallel")
KERNELS = ["numpy", pytest.param("c", marks=pytest.mark.skipif(not has_kernels(), reason="no C kernels were built"))]


def every(backends_of=PROJECTORS, only=None):
    """(beam, backend, kernels) for all that can run here."""
    return [
        pytest.param(
            beam,
            backend,
            kernels,
            id=f"{beam}-{backend}-{kernels}",
            marks=pytest.mark.skipif(
                (backend in _OPTIONAL and importlib.util.find_spec(_OPTIONAL[backend]) is None)
                or (kernels == "c" and not has_kernels()),
                reason=f"{backend} with {kernels} cannot run here",
            ),
        )
        for beam, backends in backends_of.items()
        for backend in backends
        if only is None or backend in only
        for kernels in (("numpy", "c") if backend in ("siddon", "joseph", "parallel") else ("numpy",))
    ]


@pytest.fixture(autouse=True)
def chosen_kernels(request, monkeypatch):
    """With `numpy` the C kernels are hidden."""
    if "kernels" in request.fixturenames:
        monkeypatch.setenv("XR2CT_NATIVE", "0" if request.getfixturevalue("kernels") == "numpy" else "1")


def grid(shape, spacing, origin, turn_deg=0.0):
    angle = np.deg2rad(turn_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = origin
    centre = affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2) + affine[:3, 3]
    return affine, centre


def view_of(name, centre, beam, *, shape, pixel_mm, **more):
    return make_view(name, centre, beam=beam, detector_px=shape, pixel_mm=pixel_mm, sdd_mm=1000.0, sod_mm=800.0, **more)


def run(beam, backend, mu, affine, view):
    return get_projector(beam, backend)(mu, affine, [view])[0].astype(float)


def spacing_for(backend):
    """Slice-by-slice backends need cubes; everything else is tested on bricks."""
    return (3.0, 3.0, 3.0) if backend in _OPTIONAL else (2.0, 3.0, 5.0)


def expect_mass_at_its_pixel(image, view, where, mass, beam, *, pixels, share):
    """Centre of mass within `pixels` of where the matrix puts it; the sum, scaled back to the voxel, is its mass."""
    u, v, w = view.projection() @ [*where, 1.0]
    rows, columns = np.indices(image.shape)
    assert (image * columns).sum() / image.sum() == pytest.approx(u / w, abs=pixels)
    assert (image * rows).sum() / image.sum() == pytest.approx(v / w, abs=pixels)
    pixel_mm = np.linalg.norm(view.step_u_mm)
    to_point = 1.0 if beam == "parallel" else np.linalg.norm(where - view.source_mm[:3]) / 1000.0
    assert image.sum() * (pixel_mm * to_point) ** 2 == pytest.approx(mass, rel=share)


@pytest.mark.parametrize(("beam", "backend", "kernels"), every())
@pytest.mark.parametrize("name", ["PA", "LAT", "AP"])
@pytest.mark.parametrize("voxel", [(1, 4, 6), (2, 1, 1)])
def test_one_off_centre_voxel_lands_at_its_pixel_with_its_mass(beam, backend, kernels, name, voxel):
    spacing = spacing_for(backend)
    affine, centre = grid((4, 6, 8), spacing, (-30.0, 12.0, 100.0))
    mu = np.zeros((4, 6, 8))
    mu[voxel] = 0.05
    # Siddon's voxel has sharp sides: finer pixels, and half a pixel is lost or won on each side.
    sharp = backend == "siddon"
    shape, pixel_mm = ((351, 401), 0.175) if sharp else ((121, 141), 0.25 if backend in _OPTIONAL else 0.5)
    view = view_of(name, centre, beam, shape=shape, pixel_mm=pixel_mm)
    image = run(beam, backend, mu, affine, view)
    where = (affine @ [voxel[2], voxel[1], voxel[0], 1.0])[:3]
    limits = {"pixels": 0.6, "share": 0.1} if sharp else {"pixels": 0.2, "share": 0.02}
    expect_mass_at_its_pixel(image, view, where, 0.05 * np.prod(spacing), beam, **limits)


POSES = [
    pytest.param({"name": "turned", "alpha_deg": 33.0}, {}, 0.0, id="turned"),
    pytest.param({"name": "tilted", "alpha_deg": -120.0, "beta_deg": 14.0}, {}, 0.0, id="tilted"),
    pytest.param({"name": "steep", "alpha_deg": 10.0, "beta_deg": 75.0}, {}, 0.0, id="from above"),
    pytest.param("LAT", {"roll_deg": 20.0, "offset_mm": (7.0, -4.0)}, 0.0, id="rolled and moved"),
    pytest.param("PA", {"roll_deg": 90.0}, 0.0, id="rolled upright"),
    pytest.param({"name": "both", "alpha_deg": 50.0}, {}, 31.0, id="turned grid"),
]


@pytest.mark.parametrize(("beam", "backend", "kernels"), every(only=_ANY_POSE))
@pytest.mark.parametrize(("name", "more", "turn_deg"), POSES)
def test_one_voxel_in_any_pose(beam, backend, kernels, name, more, turn_deg):
    affine, centre = grid((4, 6, 8), (2.0, 3.0, 4.0), (-30.0, 12.0, 100.0), turn_deg)
    mu = np.zeros((4, 6, 8))
    mu[1, 4, 5] = 0.05
    sharp = backend == "siddon"
    shape, pixel_mm = ((361, 391), 0.175) if sharp else ((101, 111), 0.6)
    view = view_of(name, centre, beam, shape=shape, pixel_mm=pixel_mm, **more)
    image = run(beam, backend, mu, affine, view)
    where = (affine @ [5.0, 4.0, 1.0, 1.0])[:3]
    limits = {"pixels": 0.6, "share": 0.1} if sharp else {"pixels": 0.2, "share": 0.03}
    expect_mass_at_its_pixel(image, view, where, 0.05 * 24.0, beam, **limits)


@pytest.mark.parametrize(("beam", "backend", "kernels"), every())
@pytest.mark.parametrize("name", ["PA", "LAT"])
def test_ball_chords(beam, backend, kernels, name):
    """A ball of radius 20 mm off the centre: chord 2 sqrt(r^2 - d^2), d the distance of the ray from its centre."""
    affine, centre = grid((50, 46, 54), (1.0, 1.0, 1.0), (5.0, -60.0, 200.0))
    middle, radius = centre + [3.0, -2.0, 1.5], 20.0
    fine = np.moveaxis(np.indices((50, 46, 54)), 0, -1)[..., ::-1] @ affine[:3, :3] + affine[:3, 3]
    mu = 0.02 * np.clip(radius + 0.5 - np.linalg.norm(fine - middle, axis=-1), 0, 1)
    view = view_of(name, centre, beam, shape=(60, 64), pixel_mm=1.2)
    image = run(beam, backend, mu, affine, view)

    pixel, along = view.rays()
    distance = np.linalg.norm(np.cross(middle - pixel, along), axis=-1)
    chord = 0.02 * 2 * np.sqrt(np.clip(radius**2 - distance**2, 0, None))
    inner = distance < 0.9 * radius
    worst = 0.015 if backend == "siddon" else 0.01  # steps of voxels at the rim
    assert np.abs(image - chord)[inner].mean() < worst * chord.max()
    assert np.abs(image - chord).mean() < worst * chord.max()
    assert image[distance > radius + 2].max() < 1e-6


@pytest.mark.parametrize(("beam", "backend", "kernels"), every())
def test_linear_and_the_same_in_a_moved_world(beam, backend, kernels):
    spacing = spacing_for(backend)
    affine, centre = grid((9, 10, 11), spacing, (0.0, 0.0, 0.0))
    rng = np.random.default_rng(3)
    first, second = rng.random((2, 9, 10, 11)) * 0.02
    size = {"shape": (24, 26), "pixel_mm": 3.0}
    view = view_of("LAT", centre, beam, **size)
    both = run(beam, backend, 2.0 * first + second, affine, view)
    separate = 2.0 * run(beam, backend, first, affine, view) + run(beam, backend, second, affine, view)
    np.testing.assert_allclose(both, separate, rtol=1e-5, atol=1e-6)

    shift = np.array([-13.0, 21.0, 8.0])
    moved = affine.copy()
    moved[:3, 3] += shift
    image = run(beam, backend, first, moved, view_of("LAT", centre + shift, beam, **size))
    np.testing.assert_allclose(image, run(beam, backend, first, affine, view), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("beam", "backend", "kernels"), every())
def test_views_come_back_in_the_order_they_were_asked_for(beam, backend, kernels):
    affine, centre = grid((9, 12, 11), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0))
    mu = np.random.default_rng(4).random((9, 12, 11)) * 0.02
    names = ["LAT", {"name": "a", "alpha_deg": 25.0}, "PA", {"name": "b", "alpha_deg": 140.0}, "RLAT"]
    views = [view_of(name, centre, beam, shape=(20, 22), pixel_mm=2.0) for name in names]
    together = get_projector(beam, backend)(mu, affine, views)
    assert together.shape == (5, 20, 22)
    for image, view in zip(together, views, strict=True):
        np.testing.assert_allclose(image, run(beam, backend, mu, affine, view), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("alpha_deg", [0.0, 90.0, 30.0, -65.0])
def test_backends_of_one_beam_agree(kernels, alpha_deg):
    affine, centre = grid((20, 24, 28), (3.0, 3.0, 3.0), (-40.0, 20.0, 7.0))
    z, y, x = np.indices((20, 24, 28))
    mu = 0.02 * np.exp(-(((x - 11) / 5) ** 2) - ((y - 14) / 4) ** 2 - ((z - 8) / 6) ** 2)
    view = view_of({"name": "any", "alpha_deg": alpha_deg}, centre, "parallel", shape=(26, 34), pixel_mm=3.0)
    reference = run("parallel", "reference", mu, affine, view)
    for backend in PROJECTORS["parallel"]:
        if backend in _OPTIONAL and importlib.util.find_spec(_OPTIONAL[backend]) is None:
            continue
        image = run("parallel", backend, mu, affine, view)
        # Siddon sees blocks where the others see slopes: at the flank of a narrow bell that is 2 %
        assert np.abs(image - reference).max() < (0.03 if backend == "siddon" else 0.01) * reference.max(), backend


def test_a_tilted_grid_gives_the_same_image_as_the_straight_one():
    """The same bell stored on two lattices, one of them rotated: the X-ray does not know the lattice."""
    images = []
    for turn_deg in (0.0, 25.0):
        affine, centre = grid((42, 36, 40), (1.5, 2.0, 1.0), (0.0, 0.0, 0.0), turn_deg)
        affine[:3, 3] = -centre
        points = np.moveaxis(np.indices((42, 36, 40)), 0, -1)[..., ::-1] @ affine[:3, :3].T + affine[:3, 3]
        mu = 0.02 * np.exp(-(((points - [4.0, -3.0, 2.0]) / [6.0, 8.0, 5.0]) ** 2).sum(axis=-1))
        view = view_of("LAT", np.zeros(3), "cone", shape=(40, 44), pixel_mm=1.5)
        images.append(run("cone", "joseph", mu, affine, view))
    assert np.abs(images[0] - images[1]).max() < 0.01 * images[0].max()


def lumpy(shape=(22, 26, 30)):
    """Nothing symmetric in it, values up to all six faces."""
    mu = gaussian_filter(np.random.default_rng(1).random(shape), 1.5) * 0.05
    mu[3:9, 5:20, 12:26] += 0.03
    return mu.astype(np.float32)


@pytest.mark.parametrize("beam", ["parallel", "cone"])
@pytest.mark.parametrize(("name", "more", "turn_deg"), [*POSES, ("PA", {}, 0.0), ("LAT", {}, 0.0), ("RLAT", {}, 0.0)])
def test_reference_is_the_integral_of_the_interpolated_volume(beam, name, more, turn_deg):
    """Against a march of 20 steps per voxel with SciPy's interpolation through a zero border."""
    mu = lumpy((8, 10, 12))
    affine, centre = grid(mu.shape, (2.0, 3.0, 4.0), (3.0, -8.0, 60.0), turn_deg)
    view = view_of(name, centre, beam, shape=(14, 16), pixel_mm=3.5, **more)
    pixel, along = view.rays()
    step_mm = 0.1
    steps = np.arange(-320.0, 120.0, step_mm)[:, None, None, None]
    xyz = (pixel + steps * along - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    marched = map_coordinates(np.pad(mu, 1), 1 + np.moveaxis(xyz, -1, 0)[::-1], order=1).sum(axis=0) * step_mm
    image = run(beam, "reference", mu, affine, view)
    assert np.abs(image - marched).max() < 1e-3 * marched.max()
    assert np.abs(image - marched).mean() < 5e-5 * marched.max()


@pytest.mark.parametrize("name", ["PA", "AP", "LAT"])
@pytest.mark.parametrize("offset_mm", [(0.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.6, 0.9), (20.0, -24.0)])
@pytest.mark.parametrize("kernels", KERNELS)
def test_sums_along_an_axis_are_read_between_the_voxels_where_the_pixels_lie(kernels, name, offset_mm):
    mu = lumpy((21, 21, 21))
    affine, centre = grid(mu.shape, (2.0, 2.0, 2.0), (-7, 8, 90))
    view = view_of(name, centre, "parallel", shape=(21, 21), pixel_mm=2.0, offset_mm=offset_mm)
    wanted = run("parallel", "reference", mu, affine, view)
    np.testing.assert_allclose(run("parallel", "parallel", mu, affine, view), wanted, atol=1e-5 * wanted.max())


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("beam", ["parallel", "cone"])
@pytest.mark.parametrize(("name", "more", "turn_deg"), [*POSES, ("PA", {}, 0.0), ("LAT", {}, 0.0)])
def test_siddon_is_the_exact_length_in_every_voxel(kernels, beam, name, more, turn_deg):
    """Boxes of several voxels each: the length of a ray in a box has a closed form (slabs), and integrals add up."""
    boxes = [((0, 3, 2), (8, 7, 6), 0.01), ((2, 0, 7), (5, 10, 12), 0.03), ((5, 8, 0), (6, 9, 1), 0.2)]
    mu = np.zeros((8, 10, 12), np.float32)
    affine, centre = grid(mu.shape, (2.0, 3.0, 4.0), (3.0, -8.0, 60.0), turn_deg)
    view = view_of(name, centre, beam, shape=(24, 26), pixel_mm=2.1, **more)
    pixel, along = view.rays()
    to_index = np.linalg.inv(affine[:3, :3])
    start, slope = (pixel - affine[:3, 3]) @ to_index.T, along @ to_index.T
    expected = np.zeros(view.shape)
    for (z0, y0, x0), (z1, y1, x1), value in boxes:
        mu[z0:z1, y0:y1, x0:x1] += value
        with np.errstate(divide="ignore"):
            near = (np.array([x0, y0, z0]) - 0.5 - start) / slope
            far = (np.array([x1, y1, z1]) - 0.5 - start) / slope
        enter, leave = np.minimum(near, far).max(axis=-1), np.maximum(near, far).min(axis=-1)
        expected += value * np.clip(leave - enter, 0, None)
    image = run(beam, "siddon", mu, affine, view)
    # A parallel ray exactly along a border may be counted to either side
    off = np.abs(image - expected) > 2e-5 * expected.max()
    assert off.mean() < 0.01, off.mean()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("beam", ["parallel", "cone"])
@pytest.mark.parametrize(("name", "more", "turn_deg"), [*POSES, ("PA", {}, 0.0), ("LAT", {}, 0.0), ("AP", {}, 0.0)])
def test_joseph_samples_every_plane_of_the_longest_axis_once(kernels, beam, name, more, turn_deg):
    """Written out ray by ray with SciPy's interpolation."""
    mu = lumpy((8, 10, 12))
    affine, centre = grid(mu.shape, (2.0, 3.0, 4.0), (3.0, -8.0, 60.0), turn_deg)
    view = view_of(name, centre, beam, shape=(17, 19), pixel_mm=3.0, **more)
    pixel, along = view.rays()
    to_index = np.linalg.inv(affine[:3, :3])
    start, slope = (pixel - affine[:3, 3]) @ to_index.T, along @ to_index.T
    expected = np.zeros(view.shape)
    for v, u in np.ndindex(view.shape):
        axis = np.abs(slope[v, u]).argmax()
        plane = np.arange(mu.shape[2 - axis])
        xyz = start[v, u] + ((plane - start[v, u, axis]) / slope[v, u, axis])[:, None] * slope[v, u]
        xyz[:, axis] = plane
        samples = map_coordinates(np.pad(mu, 2), xyz.T[::-1] + 2, order=1)
        expected[v, u] = samples.sum() / abs(slope[v, u, axis])
    image = run(beam, "joseph", mu, affine, view)
    ties = np.sort(np.abs(slope), axis=-1)
    clear = ties[..., 2] - ties[..., 1] > 1e-9  # at 45 degrees either axis is right
    assert np.abs(image - expected)[clear].max() < 1e-5 * expected.max()


@pytest.mark.skipif(not has_kernels(), reason="no C kernels were built")
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("backend", ["joseph", "siddon", "parallel"])
@pytest.mark.parametrize("beam", ["parallel", "cone"])
def test_kernels_and_numpy_give_the_same_numbers(beam, backend, order, monkeypatch):
    """Detectors larger and smaller than the shadow, odd sizes, steps along v of more and of less than a voxel."""
    if (beam, backend) == ("cone", "parallel"):
        pytest.skip("parallel beams only")
    volume = np.asarray(lumpy((45, 39, 70)), order=order)
    affine, centre = grid(volume.shape, (1.0, 1.2, 0.9), (3.0, -8.0, 60.0))
    names = ["PA", "RLAT", {"name": "a", "alpha_deg": 41.0}, {"name": "b", "alpha_deg": -100.0, "beta_deg": 20.0}]
    for shape, pixel_mm in (((75, 83), 0.7), ((33, 21), 2.9)):
        views = [view_of(name, centre, beam, shape=shape, pixel_mm=pixel_mm) for name in names]
        monkeypatch.setenv("XR2CT_NATIVE", "0")
        plain = get_projector(beam, backend)(volume, affine, views)
        monkeypatch.setenv("XR2CT_NATIVE", "1")
        fast = get_projector(beam, backend)(volume, affine, views)
        assert np.abs(fast - plain).max() < 2e-6 * plain.max()


def between_nans(volume):
    """The volume with z fastest, its columns apart from each other: who reads over an end of one reads NaN."""
    nz, ny, nx = volume.shape
    room = np.full((nz + 6, ny + 2, nx + 2), np.nan, volume.dtype, order="F")
    inner = room[3 : 3 + nz, 1 : 1 + ny, 1 : 1 + nx]
    inner[:] = volume
    return inner


UPRIGHT = [
    # slabs, tiles and sixteens of pixels: one, a whole number of them, one more, one less; steps of each kind along v
    pytest.param((33, 27, 31), (16, 16), 1.0, {}, id="whole tile"),
    pytest.param((48, 20, 17), (49, 33), 1.0, {}, id="one more than whole tiles"),
    pytest.param((31, 18, 21), (15, 31), 1.19, {}, id="one less, almost a voxel per pixel"),
    pytest.param((16, 1, 23), (37, 19), 0.6, {}, id="one slab"),
    pytest.param((1, 15, 14), (40, 5), 0.5, {}, id="one voxel per column"),
    pytest.param((64, 40, 37), (21, 50), 2.2, {}, id="almost two voxels per pixel"),
    pytest.param((90, 61, 70), (17, 20), 3.7, {}, id="three voxels per pixel"),
    pytest.param((33, 27, 31), (100, 90), 1.0, {}, id="detector larger than the shadow"),
    pytest.param((33, 27, 31), (40, 40), 1.0, {"offset_mm": (21.0, -17.0)}, id="half off the volume"),
]


@pytest.mark.skipif(not has_kernels(), reason="no C kernels were built")
@pytest.mark.parametrize("number", [np.float32, np.float16])
@pytest.mark.parametrize("beam", ["parallel", "cone"])
@pytest.mark.parametrize(("shape", "pixels", "pixel_mm", "more"), UPRIGHT)
def test_upright_detectors_of_every_size_see_what_numpy_sees(beam, number, shape, pixels, pixel_mm, more, monkeypatch):
    volume = between_nans((np.random.default_rng(7).random(shape) + 0.5).astype(number))
    affine, centre = grid(shape, (1.0, 1.0, 1.0), (3.0, -8.0, 60.0))
    angles = [0.0, 90.0, 180.0, 37.0, -80.0]
    views = [
        view_of({"name": f"{angle:g}", "alpha_deg": angle}, centre, beam, shape=pixels, pixel_mm=pixel_mm, **more)
        for angle in angles
    ]
    monkeypatch.setenv("XR2CT_NATIVE", "0")
    plain = get_projector(beam, "joseph")(volume, affine, views)
    flags = cpu_flags()
    for name in ["plain", *(name for name, flag in (("avx2", "avx2"), ("avx512", "avx512bw")) if flag in flags)]:
        monkeypatch.setenv("XR2CT_NATIVE", name)
        fast = get_projector(beam, "joseph")(volume, affine, views)
        assert np.abs(fast - plain).max() < 3e-6 * plain.max(), name


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("backend", ["joseph", "siddon"])
@pytest.mark.parametrize("offset_mm", [(300.0, 0.0), (0.0, 300.0), (-300.0, -300.0)])
def test_a_detector_beside_the_shadow_sees_nothing(kernels, backend, offset_mm):
    volume = between_nans(lumpy())
    affine, centre = grid(volume.shape, (1.0, 1.2, 0.9), (3.0, -8.0, 60.0))
    for name in ("PA", "LAT", {"name": "a", "alpha_deg": 41.0}):
        view = view_of(name, centre, "cone", shape=(33, 35), pixel_mm=1.0, offset_mm=offset_mm)
        assert not run("cone", backend, volume, affine, view).any()


@pytest.mark.parametrize("kernels", KERNELS)
def test_samples_on_the_border_of_the_grid_are_neither_lost_nor_made_up(kernels):
    """Slopes and steps that rounding can put on either side of the last voxel: 60 drawn beams in the plane."""
    rng = np.random.default_rng(1)
    for _ in range(60):
        shape = tuple(int(n) for n in rng.integers(2, 40, 3))
        mu = rng.random(shape, dtype=np.float32) + 1
        slope = float(rng.choice([0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0])) * float(rng.choice([-1, 1]))
        direction = np.array([slope, 1, 0]) if rng.random() < 0.5 else np.array([1, slope, 0])
        across = int(np.abs(direction).argmin())
        step_u, origin = np.zeros(3), np.zeros(3)
        step_u[across] = float(rng.choice([0.1, 0.2, 0.5, 1.0]))
        origin[across], origin[1 - across] = float(rng.integers(-40, 1)), float(rng.integers(-5, 50))
        view = View("a", np.append(direction, 0.0), origin, np.array([0, 0, 1.0]), step_u, (shape[0], 400))
        sheets, joseph = (run("parallel", name, mu, np.eye(4), view) for name in ("parallel", "joseph"))
        assert np.abs(sheets - joseph).max() <= 1e-3 * joseph.max()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("backend", ["joseph", "siddon"])
@pytest.mark.parametrize("name", ["PA", {"name": "b", "alpha_deg": -100.0, "beta_deg": 20.0}], ids=["PA", "tilted"])
def test_every_number_type_and_memory_layout_is_read_as_what_it_is(kernels, backend, name):
    whole = np.random.default_rng(2).integers(0, 50, (11, 12, 13))
    affine, centre = grid(whole.shape, (2.0, 3.0, 4.0), (0.0, 0.0, 0.0))
    view = view_of(name, centre, "cone", shape=(20, 22), pixel_mm=2.3)
    expected = run("cone", backend, whole.astype(np.float64), affine, view)
    packed = np.zeros(whole.shape, [("a", "f4"), ("b", "i2")])
    packed["a"] = whole
    layouts = [whole.astype(kind) for kind in (">f4", ">f2", "<f2", "i2", ">i2", "u1", "i8")]
    layouts += [
        packed["a"],
        whole.astype("f4")[::-1][::-1],
        np.asfortranarray(whole.astype("f4")),
        whole.astype("f4")[:, ::-1][:, ::-1],
    ]
    for volume in layouts:
        np.testing.assert_allclose(run("cone", backend, volume, affine, view), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", ["PA", "LAT", {"name": "b", "alpha_deg": -100.0, "beta_deg": 20.0}])
def test_half_precision_volumes_are_projected_as_they_are(kernels, name):
    volume = np.asarray(lumpy((45, 39, 70)), np.float16, order="F")
    affine, centre = grid(volume.shape, (1.0, 1.2, 0.9), (3.0, -8.0, 60.0))
    view = view_of(name, centre, "cone", shape=(75, 83), pixel_mm=0.7)
    same = run("cone", "joseph", volume.astype(np.float32), affine, view)
    np.testing.assert_allclose(run("cone", "joseph", volume, affine, view), same, atol=2e-6 * same.max())
    assert np.abs(same - run("cone", "joseph", lumpy((45, 39, 70)), affine, view)).max() < 1e-4 * same.max()


@pytest.mark.skipif(not has_kernels(), reason="no C kernels were built")
@pytest.mark.parametrize("beam", ["parallel", "cone"])
def test_every_instruction_set_gives_the_same_bits(beam, monkeypatch):
    volume = lumpy((45, 39, 70))
    affine, centre = grid(volume.shape, (1.0, 1.2, 0.9), (3.0, -8.0, 60.0))
    names = ["PA", "LAT", {"name": "a", "alpha_deg": 41.0}, {"name": "b", "alpha_deg": -100.0, "beta_deg": 20.0}]
    views = [view_of(name, centre, beam, shape=(75, 83), pixel_mm=0.7) for name in names]
    flags = cpu_flags()
    sets = ["plain", *(name for name, flag in (("avx2", "avx2"), ("avx512", "avx512bw")) if flag in flags)]
    if len(sets) == 1:
        pytest.skip("one instruction set only")
    for backend in ("joseph", "siddon", *(["parallel"] if beam == "parallel" else [])):
        images = []
        for name in sets:
            monkeypatch.setenv("XR2CT_NATIVE", name)
            halves = get_projector(beam, backend)(np.asarray(volume, np.float16, order="F"), affine, views)
            images.append(np.stack([get_projector(beam, backend)(volume, affine, views), halves]))
        for image in images[1:]:
            np.testing.assert_array_equal(image, images[0], err_msg=backend)


def cpu_flags():
    try:
        with open("/proc/cpuinfo") as lines:
            return set(next(line for line in lines if line.startswith("flags")).split())
    except (OSError, StopIteration):
        return set()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("decomposition", list(DECOMPOSITIONS))
@pytest.mark.parametrize("name", ["PA", {"name": "b", "alpha_deg": -100.0, "beta_deg": 20.0}], ids=["PA", "tilted"])
def test_materials_in_one_pass_equal_one_volume_each(kernels, decomposition, name):
    """Columns of air, bone or everything, and just beyond air's bounds: one pass over HU, and volume by volume."""
    hu = np.random.default_rng(5).integers(-1024, 2000, (21, 24, 27)).astype(np.int16)
    hu[:, :8], hu[:, 8:10], hu[:, 10:16], hu[:, 16:18], hu[:, 18:20] = -1000, 1200, 40, -799, -930
    affine, centre = grid(hu.shape, (2.0, 2.5, 3.0), (0.0, 0.0, 0.0))
    view = view_of(name, centre, "cone", shape=(30, 34), pixel_mm=2.9)
    chosen = DECOMPOSITIONS[decomposition]
    areal = areal_densities(hu, affine, [view], beam="cone", backend="joseph", decomposition=chosen)
    one_by_one = [0.1 * run("cone", "joseph", density, affine, view) for density in decompose(hu, chosen)]
    assert areal.shape == (1, len(MATERIALS), 30, 34)
    np.testing.assert_allclose(areal[0], one_by_one, rtol=3e-6, atol=3e-6)
    by_siddon = areal_densities(hu, affine, [view], beam="cone", backend="siddon", decomposition=chosen)
    assert by_siddon.sum() == pytest.approx(areal.sum(), rel=0.02)

    image = attenuation_integrals(hu, affine, [view], beam="cone", backend="joseph", energy_kev=60.0)
    np.testing.assert_allclose(image[0], run("cone", "joseph", hu_to_mu(hu, 60.0), affine, view), rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("backend", _ANY_POSE)
@pytest.mark.parametrize("second", ["LAT", {"name": "tilted", "alpha_deg": 40.0, "beta_deg": 10.0}])
def test_views_of_one_call_share_a_detector(backend, second):
    mu = lumpy((6, 7, 8))
    affine, centre = grid(mu.shape, (2.0, 2.0, 2.0), (0, 0, 0))
    views = [view_of("PA", centre, "parallel", shape=(4, 5), pixel_mm=3.0)]
    views.append(view_of(second, centre, "parallel", shape=(1, 5), pixel_mm=3.0))
    with pytest.raises(
        UserError, match="has a detector of 1 x 5 pixels; expected 4 x 5, as view PA has. Project them one by one"
    ):
        get_projector("parallel", backend)(mu, affine, views)
    with pytest.raises(UserError, match="no views were given; expected at least one"):
        get_projector("parallel", backend)(mu, affine, [])


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("shape", [(1, 1, 5), (1, 9, 7), (9, 1, 7), (9, 7, 1)])
def test_nothing_beside_a_thin_volume_is_read(kernels, shape):
    """One voxel thick, in a box of NaN: no sample may touch the box."""
    box = np.full(tuple(side + 4 for side in shape), np.nan, np.float32)
    inside = box[2:-2, 2:-2, 2:-2]
    inside[:] = np.random.default_rng(3).random(shape)
    affine, centre = grid(shape, (3.0, 3.0, 3.0), (4, -5, 60))
    for name, side in product(("PA", "LAT", {"name": "oblique", "alpha_deg": 20.0, "beta_deg": 25.0}), (1, 9)):
        view = view_of(name, centre, "cone", shape=(side, side), pixel_mm=1.0, roll_deg=20.0)
        image = run("cone", "joseph", inside, affine, view)
        assert image.max() > 0
        np.testing.assert_array_equal(image, run("cone", "joseph", inside.copy(), affine, view))


def test_unknown_missing_and_unfit_backends_are_named(monkeypatch):
    with pytest.raises(UserError, match="'josef' cannot simulate a parallel beam; expected one of: parallel.*'joseph'"):
        get_projector("parallel", "josef")
    affine, centre = grid((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    view = view_of("PA", centre, "parallel", shape=(4, 4), pixel_mm=1.0)
    for backend, module in _OPTIONAL.items():
        monkeypatch.setitem(__import__("sys").modules, module, None)
        monkeypatch.setitem(__import__("sys").modules, f"{module}.framework", None)
        with pytest.raises(UserError, match=f"backend '{backend}' needs.*not installed"):
            get_projector("parallel", backend)(np.zeros((4, 4, 4)), affine, [view])
    with pytest.raises(UserError, match=r"view PA: backend 'parallel' cannot simulate a cone beam"):
        get_projector("parallel", "parallel")(
            np.zeros((4, 4, 4)), affine, [view_of("PA", centre, "cone", shape=(4, 4), pixel_mm=1.0)]
        )


@pytest.mark.parametrize("offset_v_mm", [-260.0, -90.0, 0.0, 90.0, 260.0])
@pytest.mark.parametrize("affine", [np.diag([1.0, 1, 1, 1]), np.diag([-1.0, 1, -1, 1])], ids=["RAS", "LAI"])
def test_a_ray_that_is_steep_anywhere_on_the_detector_is_noticed(affine, offset_v_mm):
    """Also on one that lies above or below the central ray altogether, whichever way the axis runs."""
    asked = set()
    for sdd_mm in (150.0, 250.0, 500.0, 900.0):
        view = make_view(
            "PA", np.zeros(3), beam="cone", detector_px=(96, 32), pixel_mm=2.0,
            sdd_mm=sdd_mm, sod_mm=100.0, offset_mm=(30.0, offset_v_mm),
        )  # fmt: skip
        (seen,) = grid_views([view], affine)
        direction = np.abs(seen.directions(seen.pixels()))
        truth = bool((direction[..., 2] > direction[..., :2].max(axis=-1)).any())
        assert steep(seen, 2) is truth
        asked.add(truth)
    assert (True in asked) is (offset_v_mm != 0)
