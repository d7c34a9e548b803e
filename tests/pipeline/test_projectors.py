"""One suite for every simulator: closed forms and laws, in more than one view."""

import importlib.util

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.geometry import make_view
from pipeline.projectors import PROJECTORS, get_projector

_OPTIONAL = {"astra": "astra", "cil": "cil"}
EVERY = [
    pytest.param(
        beam,
        backend,
        id=f"{beam}-{backend}",
        marks=pytest.mark.skipif(
            backend in _OPTIONAL and importlib.util.find_spec(_OPTIONAL[backend]) is None,
            reason=f"optional backend {backend} is not installed",
        ),
    )
    for beam, backends in PROJECTORS.items()
    for backend in backends
]


def grid(shape, spacing, origin):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    centre = affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2) + affine[:3, 3]
    return affine, centre


def view_of(name, centre, beam, *, shape, pixel_mm):
    return make_view(name, centre, beam=beam, detector_px=shape, pixel_mm=pixel_mm, sdd_mm=1000.0, sod_mm=800.0)


def spacing_for(backend):
    """Slice-by-slice backends need cubes; everything else is tested on bricks."""
    return (3.0, 3.0, 3.0) if backend in _OPTIONAL else (2.0, 3.0, 5.0)


@pytest.mark.parametrize(("beam", "backend"), EVERY)
@pytest.mark.parametrize("name", ["PA", "LAT", "AP"])
@pytest.mark.parametrize("voxel", [(1, 4, 6), (2, 1, 1)])
def test_one_off_centre_voxel_lands_at_its_pixel_with_its_mass(beam, backend, name, voxel):
    spacing = spacing_for(backend)
    affine, centre = grid((4, 6, 8), spacing, (-30.0, 12.0, 100.0))
    mu = np.zeros((4, 6, 8))
    mu[voxel] = 0.05
    pixel_mm = 0.5 if backend not in _OPTIONAL else 0.25
    view = view_of(name, centre, beam, shape=(121, 141), pixel_mm=pixel_mm)
    image = get_projector(beam, backend)(mu, affine, view)

    where = affine @ [voxel[2], voxel[1], voxel[0], 1.0]
    u, v, w = view.projection() @ where
    rows, columns = np.indices(image.shape)
    assert (image * columns).sum() / image.sum() == pytest.approx(u / w, abs=0.2)
    assert (image * rows).sum() / image.sum() == pytest.approx(v / w, abs=0.2)
    to_point = 1.0 if beam == "parallel" else (np.linalg.norm(where[:3] - view.source_mm[:3]) / 1000.0)
    area = (pixel_mm * to_point) ** 2
    assert image.sum() * area == pytest.approx(0.05 * np.prod(spacing), rel=0.02)


@pytest.mark.parametrize(("beam", "backend"), EVERY)
@pytest.mark.parametrize("name", ["PA", "LAT"])
def test_ball_chords(beam, backend, name):
    """A ball of radius 20 mm off the centre: chord 2 sqrt(r^2 - d^2), d the distance of the ray from its centre."""
    affine, centre = grid((50, 46, 54), (1.0, 1.0, 1.0), (5.0, -60.0, 200.0))
    middle, radius = centre + [3.0, -2.0, 1.5], 20.0
    fine = np.moveaxis(np.indices((50, 46, 54)), 0, -1)[..., ::-1] @ affine[:3, :3] + affine[:3, 3]
    mu = 0.02 * np.clip(radius + 0.5 - np.linalg.norm(fine - middle, axis=-1), 0, 1)
    view = view_of(name, centre, beam, shape=(60, 64), pixel_mm=1.2)
    image = get_projector(beam, backend)(mu, affine, view)

    pixel, along = view.rays()
    distance = np.linalg.norm(np.cross(middle - pixel, along), axis=-1)
    chord = 0.02 * 2 * np.sqrt(np.clip(radius**2 - distance**2, 0, None))
    inner = distance < 0.9 * radius
    assert np.abs(image - chord)[inner].mean() < 0.01 * chord.max()
    assert np.abs(image - chord).mean() < 0.01 * chord.max()
    assert image[distance > radius + 2].max() < 1e-6


@pytest.mark.parametrize(("beam", "backend"), EVERY)
def test_linear_and_the_same_in_a_moved_world(beam, backend):
    spacing = spacing_for(backend)
    affine, centre = grid((9, 10, 11), spacing, (0.0, 0.0, 0.0))
    rng = np.random.default_rng(3)
    first, second = rng.random((2, 9, 10, 11)) * 0.02
    project, size = get_projector(beam, backend), {"shape": (24, 26), "pixel_mm": 3.0}
    view = view_of("LAT", centre, beam, **size)
    both = project(2.0 * first + second, affine, view)
    separate = 2.0 * project(first, affine, view) + project(second, affine, view)
    np.testing.assert_allclose(both, separate, rtol=1e-5, atol=1e-6)

    shift = np.array([-13.0, 21.0, 8.0])
    moved = affine.copy()
    moved[:3, 3] += shift
    image = project(first, moved, view_of("LAT", centre + shift, beam, **size))
    np.testing.assert_allclose(image, project(first, affine, view), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha_deg", [0.0, 90.0, 30.0, -65.0])
def test_backends_of_one_beam_agree(alpha_deg):
    affine, centre = grid((20, 24, 28), (3.0, 3.0, 3.0), (-40.0, 20.0, 7.0))
    z, y, x = np.indices((20, 24, 28))
    mu = 0.02 * np.exp(-(((x - 11) / 5) ** 2) - ((y - 14) / 4) ** 2 - ((z - 8) / 6) ** 2)
    view = view_of({"name": "any", "alpha_deg": alpha_deg}, centre, "parallel", shape=(26, 34), pixel_mm=3.0)
    reference = get_projector("parallel", "trilinear")(mu, affine, view)
    for backend in PROJECTORS["parallel"]:
        if backend in _OPTIONAL and importlib.util.find_spec(_OPTIONAL[backend]) is None:
            continue
        image = get_projector("parallel", backend)(mu, affine, view)
        assert np.abs(image - reference).max() < 0.01 * reference.max(), backend


def test_a_tilted_grid_gives_the_same_image_as_the_straight_one():
    """The same ball stored on two lattices, one of them rotated: the X-ray does not know the lattice."""
    images = []
    for turn in (0.0, 25.0):
        angle = np.deg2rad(turn)
        rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        affine = np.eye(4)
        affine[:3, :3] = rotation @ np.diag([1.5, 2.0, 1.0])
        affine[:3, 3] = -affine[:3, :3] @ [19.5, 17.5, 20.5]
        points = np.moveaxis(np.indices((42, 36, 40)), 0, -1)[..., ::-1] @ affine[:3, :3].T + affine[:3, 3]
        mu = 0.02 * np.exp(-(((points - [4.0, -3.0, 2.0]) / [6.0, 8.0, 5.0]) ** 2).sum(axis=-1))
        view = view_of("LAT", np.zeros(3), "cone", shape=(40, 44), pixel_mm=1.5)
        images.append(get_projector("cone", "trilinear")(mu, affine, view))
    assert np.abs(images[0] - images[1]).max() < 0.01 * images[0].max()


def test_unknown_and_missing_backends_are_named(monkeypatch):
    with pytest.raises(UserError, match="'nmupy' cannot simulate a parallel beam; expected one of: numpy.*'numpy'"):
        get_projector("parallel", "nmupy")
    affine, centre = grid((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    view = view_of("PA", centre, "parallel", shape=(4, 4), pixel_mm=1.0)
    for backend, module in _OPTIONAL.items():
        monkeypatch.setitem(__import__("sys").modules, module, None)
        monkeypatch.setitem(__import__("sys").modules, f"{module}.framework", None)
        with pytest.raises(UserError, match=f"backend '{backend}' needs.*not installed"):
            get_projector("parallel", backend)(np.zeros((4, 4, 4)), affine, view)
