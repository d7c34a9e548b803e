"""Voxels are read where the simulators put their shadows: off-centre, anisotropic, two views, two beams."""

import numpy as np
import pytest
import torch

from pipeline.geometry import make_view
from pipeline.projectors import get_projector
from xr2ct.encoding import HashGrid, make_levels
from xr2ct.sampling import Lattice, Points, comb, pixels_of, read_bilinear, slabs, voxel_to_pixel

AFFINE = np.array([[2.0, 0, 0, -17], [0, 3.0, 0, 40], [0, 0, 5.0, 300], [0, 0, 0, 1]])
SHAPE = (4, 6, 8)
VOXEL = (3, 1, 6)  # z, y, x
VIEWS = ["PA", "LAT", {"name": "oblique", "alpha_deg": 35.0, "beta_deg": 10.0}]


def view_of(name, beam):
    return make_view(
        name, np.array([-9.0, 46.0, 308.0]), beam=beam, detector_px=(33, 28), pixel_mm=1.3, sdd_mm=300.0, sod_mm=220.0
    )


def lattice_of(*indices):
    return Lattice(*(np.array(axis) for axis in indices), SHAPE)


def matrix_of(view):
    return torch.from_numpy(voxel_to_pixel(view.projection()[None], AFFINE))


@pytest.mark.parametrize("beam", ["parallel", "cone"])
@pytest.mark.parametrize("name", VIEWS, ids=["PA", "LAT", "oblique"])
def test_a_bright_voxel_is_read_at_its_shadow(name, beam):
    view = view_of(name, beam)
    mu = np.zeros(SHAPE)
    mu[VOXEL] = 1.0
    image = get_projector(beam, "reference")(mu, AFFINE, [view])[0]
    v, u = np.indices(image.shape)
    centroid = [(axis * image).sum() / image.sum() for axis in (u, v)]
    pixel = pixels_of(matrix_of(view), lattice_of(*([index] for index in VOXEL)))
    assert pixel.flatten().numpy() == pytest.approx(centroid, abs=0.05)

    everywhere = Lattice(*map(np.arange, SHAPE), SHAPE)
    read = read_bilinear(torch.from_numpy(image)[None, None], pixels_of(matrix_of(view), everywhere))[0, ..., 0]
    assert read.expand(SHAPE)[VOXEL] >= 0.97 * read.max()  # a voxel on the same ray may read a little more


@pytest.mark.parametrize("beam", ["parallel", "cone"])
@pytest.mark.parametrize("name", VIEWS, ids=["PA", "LAT", "oblique"])
def test_pixels_are_the_matrix_product_of_every_voxel(name, beam):
    view, lattice = view_of(name, beam), lattice_of([0, 3], [1, 2, 5], [0, 4, 6, 7])
    pixels = pixels_of(matrix_of(view), lattice).expand(1, 2, 3, 4, 2)
    for place in np.ndindex(2, 3, 4):
        z, y, x = (axis[i] for axis, i in zip(lattice.axes, place, strict=True))
        u, v, w = view.projection() @ AFFINE @ [x, y, z, 1]
        assert pixels[(0, *place)].numpy() == pytest.approx([u / w, v / w], abs=1e-6)


@pytest.mark.parametrize("beam", ["parallel", "cone"])
@pytest.mark.parametrize("name", VIEWS, ids=["PA", "LAT", "oblique"])
def test_scattered_voxels_are_read_where_their_lattice_is(name, beam):
    matrix, index = matrix_of(view_of(name, beam)), np.array([[3, 1, 6], [0, 0, 0], [2, 5, 7], [3, 1, 6]])
    pixels = pixels_of(matrix, Points(index, SHAPE))
    everywhere = pixels_of(matrix, Lattice(*map(np.arange, SHAPE), SHAPE)).expand(1, *SHAPE, 2)
    assert pixels.shape == (1, 4, 1, 1, 2)
    torch.testing.assert_close(pixels[0, :, 0, 0], everywhere[0][tuple(index.T)])


def test_only_an_axis_along_parallel_rays_is_read_once():
    everywhere = Lattice(*map(np.arange, SHAPE), SHAPE)

    def shape(*views):
        return tuple(pixels_of(torch.cat([matrix_of(view) for view in views]), everywhere).shape[1:4])

    assert shape(view_of("PA", "parallel")) == (4, 1, 8)
    assert shape(view_of("LAT", "parallel")) == (4, 6, 1)
    assert shape(view_of(VIEWS[2], "parallel")) == SHAPE
    assert shape(view_of("PA", "cone")) == SHAPE
    assert shape(view_of("PA", "parallel"), view_of("LAT", "parallel")) == SHAPE


def test_reading_is_bilinear_between_pixel_centres_and_zero_outside():
    v, u = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    image = torch.stack([1 + 3 * u + 11 * v, torch.ones(5, 7)])[None]
    pixels = torch.tensor([[0.0, 0], [6, 4], [2.25, 3.5], [-0.5, 2], [6.5, 2], [3, 4.25], [-1, 0], [20, 2]])
    read = read_bilinear(image, pixels[None, None, None])[0, 0, 0]
    assert read[:, 0].tolist() == pytest.approx([1, 63, 46.25, 11.5, 20.5, 40.5, 0, 0], abs=1e-4)
    assert read[:, 1].tolist() == pytest.approx([1, 1, 1, 0.5, 0.5, 0.75, 0, 0], abs=1e-6)


def test_cases_are_read_from_their_own_image():
    image = torch.arange(2.0)[:, None, None, None].expand(2, 1, 3, 3)
    assert read_bilinear(image, torch.ones(2, 1, 1, 1, 2)).flatten().tolist() == [0, 1]


def test_a_lattice_picks_its_voxels_and_places_their_centres():
    volume = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    lattice = lattice_of([1], [0, 5], [2, 3])
    assert lattice.pick(volume).tolist() == [[[1 * 48 + 2, 1 * 48 + 3], [1 * 48 + 40 + 2, 1 * 48 + 40 + 3]]]
    z, y, x = lattice.unit()
    assert z.tolist() == [1.5 / 4]
    assert y.tolist() == [0.5 / 6, 5.5 / 6]
    assert x.tolist() == [2.5 / 8, 3.5 / 8]


def test_points_pick_their_voxels_and_place_their_centres():
    volume = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    points = Points(np.array([[1, 0, 2], [3, 5, 7]]), SHAPE)
    assert points.pick(volume).tolist() == [[[1 * 48 + 2]], [[191]]]
    torch.testing.assert_close(points.unit(), torch.tensor([[2.5 / 8, 0.5 / 6, 1.5 / 4], [7.5 / 8, 5.5 / 6, 3.5 / 4]]))


def test_points_and_lattice_have_one_code():
    grid = HashGrid(make_levels(3, 4, 12, 8), 2, "reference")
    grid.parameters_flat.data.uniform_(-1, 1)
    lattice = lattice_of([1, 3], [0, 5], [2])
    index = np.array([[3, 0, 2], [1, 5, 2]])
    encoded = Points(index, SHAPE).encode(grid)
    assert encoded.shape == (2, 1, 1, 6)
    torch.testing.assert_close(encoded[:, 0, 0], lattice.encode(grid)[[1, 0], [0, 1], 0], atol=1e-5, rtol=1e-4)


def test_slabs_cover_the_grid_once_in_order():
    parts = slabs((5, 2, 3), 2)
    assert np.concatenate([part.z for part in parts]).tolist() == [0, 1, 2, 3, 4]
    assert all(part.y.tolist() == [0, 1] and part.x.tolist() == [0, 1, 2] for part in parts)


@pytest.mark.parametrize(("points", "run"), [(8, 1), (8, 4), (12, 4), (100, 4)])
def test_a_comb_reaches_every_voxel_equally_often(points, run):
    shape = (32, 20, 6)
    random = np.random.default_rng(3)
    seen = [np.zeros(n) for n in shape]
    for _ in range(2000):
        for count, axis, n in zip(seen, comb(shape, points, run, random).axes, shape, strict=True):
            assert np.all(np.diff(axis) > 0)
            assert axis[0] >= 0 and axis[-1] < n
            assert len(axis) <= min(points, n)
            count[axis] += 1
    for count in seen:
        assert count.min() > 0.85 * count.mean()
        assert count.max() < 1.15 * count.mean()


def test_a_comb_spans_the_grid_in_runs():
    lattice = comb((64, 64, 64), 16, 4, np.random.default_rng(0))
    for axis in lattice.axes:
        assert len(axis) == 16
        assert np.ptp(axis) > 32
        assert (np.diff(axis) == 1).sum() >= 11


def test_a_comb_is_a_function_of_its_random_numbers():
    first, again, other = (comb((30, 30, 30), 8, 2, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.x.tolist() == again.x.tolist() != other.x.tolist()
