"""Every backend of the hash grid against the reference in float64, and the layout that tiny-cuda-nn would read."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xr2ct.encoding import BACKENDS, HashGrid, Level, make_levels, present_backends, tinycudann_config
from xr2ct.encoding.native import c_levels
from xr2ct.encoding.tinycuda import resolutions
from xr2ct.errors import UserError
from xr2ct.native import call, has_kernels

LEVELS = make_levels(5, coarsest=3, finest=40, log2_entries=10)  # 3, 6, 11, 22, 40: two dense, three hashed
HERE = [name for name in BACKENDS if name in present_backends()]
NEEDS_KERNELS = pytest.mark.skipif(not has_kernels(), reason="the C kernels are not built")


def grids(backend, features=8, levels=LEVELS):
    """The reference in float64 and a grid of `backend` with the same parameters, of size one."""
    true = HashGrid(levels, features).double()
    torch.nn.init.uniform_(true.parameters_flat, -1, 1)
    true.parameters_flat.data = true.parameters_flat.data.float().double()
    found = HashGrid(levels, features, backend)
    found.load_state_dict(true.state_dict())
    return true, found


def cloud(n=700):
    """Off the lattice, with the corners and faces of the cube and two points outside it; float32 exact in float64."""
    points = torch.rand(n, 3)
    points[:4] = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 1, 0.5], [1, 0.25, 0]])
    points[4:6] = torch.tensor([[-0.3, 0.2, 1.4], [2.5, -1.0, 0.5]])
    return points


def assert_same(found, true, relative):
    assert (found - true).norm() <= relative * true.norm()
    assert (found - true).abs().max() <= 10 * relative * true.abs().max()


@pytest.mark.parametrize("features", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize("backend", HERE)
def test_scattered_points_and_their_gradient_are_the_references_in_float64(backend, features):
    true, found = grids(backend, features)
    points, pull = cloud(), torch.randn(700, 5 * features)
    expected, encoded = true(points.double()), found(points)
    assert_same(encoded, expected, 1e-5)
    expected.backward(pull.double())
    encoded.backward(pull)
    assert_same(found.parameters_flat.grad, true.parameters_flat.grad, 1e-4)


@pytest.mark.parametrize("backend", HERE)
def test_a_lattice_and_its_gradient_are_the_references_in_float64(backend):
    true, found = grids(backend)
    z, y, x = (0.11 + torch.arange(7) / 40), torch.tensor([0.0, 0.3, 0.31, 1.0]), (0.4 + torch.arange(5) / 9)
    expected, encoded = true.lattice(z, y, x), found.lattice(z, y, x)
    assert encoded.shape == (7, 4, 5, 40)
    assert_same(encoded, expected, 1e-5)
    pull = torch.randn(7, 4, 5, 40)
    expected.backward(pull.double())
    encoded.backward(pull)
    assert_same(found.parameters_flat.grad, true.parameters_flat.grad, 1e-4)


@pytest.mark.parametrize("backend", HERE)
def test_fifty_steps_of_a_fit_lose_as_the_reference_does(backend):
    """The encoding and a linear layer follow a wave; the seeds fix everything but the rounding."""
    z, y, x = (torch.arange(size) / 9 for size in (6, 7, 8))
    wave = torch.sin(5 * z[:, None, None] + 3 * y[:, None] * x)
    curves = []
    for name in ("reference", backend):
        torch.manual_seed(0)
        grid, read = HashGrid(LEVELS, 4, name), torch.nn.Linear(20, 1)
        optimizer = torch.optim.Adam([*grid.parameters(), *read.parameters()], lr=1e-2)
        curve = []
        for step in range(50):
            if step % 2:
                points = torch.rand(100, 3)
                loss = (
                    read(grid(points))[:, 0] - torch.sin(5 * points[:, 2] + 3 * points[:, 1] * points[:, 0])
                ).square()
            else:
                loss = (read(grid.lattice(z, y, x))[..., 0] - wave).square()
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
            curve.append(loss.mean().item())
        curves.append(curve)
    assert min(curves[0]) < 0.1 * curves[0][0]
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)


@NEEDS_KERNELS
def test_the_kernel_encodes_to_the_bits_of_the_plain_formula():
    grid, plain = HashGrid(LEVELS, 8, "native"), HashGrid(LEVELS, 8)
    plain.load_state_dict(grid.state_dict())
    points = cloud(9000)  # more than one chunk, and no whole number of blocks
    assert torch.equal(grid(points), plain(points))


@NEEDS_KERNELS
@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 128])
def test_any_number_of_points_is_encoded(n):
    grid, plain = HashGrid(LEVELS, 8, "native"), HashGrid(LEVELS, 8)
    plain.load_state_dict(grid.state_dict())
    points = torch.rand(n, 3)
    encoded = grid(points)
    assert torch.equal(encoded, plain(points))
    encoded.sum().backward()
    plain(points).sum().backward()
    torch.testing.assert_close(grid.parameters_flat.grad, plain.parameters_flat.grad, atol=1e-5, rtol=1e-5)


@NEEDS_KERNELS
def test_threads_do_not_change_a_bit_of_the_gradient():
    points, pull, found = torch.rand(20000, 3), torch.randn(20000, 40), []
    grid = HashGrid(LEVELS, 8, "native")
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            encoded = grid(points)
            found.append((encoded, *torch.autograd.grad(encoded, grid.parameters_flat, pull)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0][i]) for other in found[1:] for i, one in enumerate(other))


@NEEDS_KERNELS
def test_the_kernel_reads_views_and_lets_points_have_a_gradient():
    grid, plain = HashGrid(LEVELS, 8, "native"), HashGrid(LEVELS, 8)
    plain.load_state_dict(grid.state_dict())
    points = torch.rand(3, 40).T.requires_grad_()
    (found,) = torch.autograd.grad(grid(points).sum(), points)
    (expected,) = torch.autograd.grad(plain(points).sum(), points)
    assert torch.equal(found, expected)
    with torch.no_grad():
        assert torch.equal(grid(points), plain(points))
    grid.parameters_flat = torch.nn.Parameter(plain.parameters_flat.detach().repeat_interleave(2)[::2])
    assert torch.equal(grid(points.detach()), plain(points))


@NEEDS_KERNELS
def test_numbers_that_are_no_coordinates_do_not_reach_beyond_the_table():
    points = torch.tensor([[float("nan"), 0.5, 0.5], [float("inf"), 0.1, 0.1], [3e38, -3e38, 1e20], [0.2, 0.3, 0.4]])
    grid = HashGrid(LEVELS, 8, "native")
    encoded = grid(points)
    assert encoded[0].isnan().all()
    assert encoded[3].isfinite().all()
    encoded.sum().backward()


@NEEDS_KERNELS
def test_what_the_kernel_cannot_encode_is_refused():
    with pytest.raises(
        UserError, match=r"the table is torch\.float64 on cpu.*expected torch\.float32 on cpu.*'reference'"
    ):
        HashGrid(LEVELS, 8, "native").double()(torch.rand(2, 3).double())
    with pytest.raises(UserError, match="33 features; expected .* at most 32 features"):
        HashGrid(LEVELS, 33, "native")(torch.rand(2, 3))


@NEEDS_KERNELS
def test_a_table_beyond_the_kernels_integers_is_refused_before_it_is_read():
    levels, nothing = (Level(scale=2.0, resolution=3, entries=2**28, offset=0),), torch.empty(0)
    with pytest.raises(ValueError, match="kernel hash_grid_encode"):
        call("hash_grid_encode", c_levels(levels), 1, 8, nothing, 0, nothing, nothing)


def test_a_misspelt_backend_names_the_nearest():
    with pytest.raises(UserError, match=r"'natve' is not known; expected one of: reference, lattice.*mean 'native'\?"):
        HashGrid(LEVELS, 8, "natve")


def test_hidden_kernels_are_said_to_be_missing(monkeypatch):
    monkeypatch.setenv("XR2CT_NATIVE", "0")
    with pytest.raises(
        UserError, match=r"'native' is not present here: .*XR2CT_NATIVE=0; expected one of: reference, lattice"
    ):
        HashGrid(LEVELS, 8, "native")
    assert HashGrid(LEVELS, 8, "lattice")(torch.rand(2, 3)).shape == (2, 40)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    with pytest.raises(UserError, match=r"'tinycudann' is not present here: the package tinycudann cannot be imported"):
        HashGrid(LEVELS, 8, "tinycudann")


def test_the_papers_layout_is_tiny_cuda_nns_by_hand():
    """N 16 to 128 in ten steps of 2^0.3; rows are the cubes rounded up to a multiple of eight, until 2^19 = 524288."""
    levels = make_levels(11, coarsest=16, finest=128, log2_entries=19)
    assert [level.resolution for level in levels] == [16, 20, 25, 30, 37, 46, 56, 69, 85, 104, 128]
    cubes = [4096, 8000, 15632, 27000, 50656, 97336, 175616, 328512]  # 25^3 = 15625, 37^3 = 50653, 69^3 = 328509
    assert [level.entries for level in levels] == [*cubes, 524288, 524288, 524288]  # 85^3 = 614125
    starts = [0, 4096, 12096, 27728, 54728, 105384, 202720, 378336, 706848, 1231136, 1755424]
    assert [level.offset for level in levels] == starts
    assert [level.dense for level in levels] == [True] * 8 + [False] * 3
    assert HashGrid(levels, 8).parameters_flat.numel() == (1755424 + 524288) * 8


def test_parameters_travel_in_the_flat_order():
    """Feature f of row r of a level is parameter (offset + r) F + f, dense or hashed."""
    levels = make_levels(2, coarsest=3, finest=9, log2_entries=6)  # 27 -> 32 rows, 9^3 = 729 -> 64
    grid = HashGrid(levels, 2)
    grid.load_tinycudann_state({"params": torch.arange(192.0)})
    assert grid.tinycudann_state()["params"].tolist() == list(range(192))
    # scale 2: the point is vertex (1, 0, 2) exactly, row 1 + 0 * 3 + 2 * 9 = 19; the second level's scale is 8:
    # vertex (2.5, 0.5, 6.5) has eight neighbours, rows 32 + (x ^ y 2654435761 ^ z 805459861) mod 64
    encoded = grid(torch.tensor([[0.25, -0.25, 0.75]]))[0]
    assert encoded[:2].tolist() == [38, 39]
    hashed = [x ^ (y * 49) % 64 ^ (z * 21) % 64 for x in (2, 3) for y in (-2, -1) for z in (6, 7)]  # primes mod 64
    rows = [32 + row for row in hashed]
    assert encoded[2].item() == pytest.approx(np.mean([2 * row for row in rows]))


def test_parameters_of_another_layout_are_refused():
    with pytest.raises(UserError, match=r"the state has 100 parameters; expected 192 \(96 rows of 2 features\)"):
        HashGrid(make_levels(2, coarsest=3, finest=9, log2_entries=6), 2).load_tinycudann_state(
            {"params": torch.ones(100)}
        )


SHAPES = [(11, 16, 128, 19), (11, 16, 128, 24), (11, 16, 512, 19), (1, 5, 5, 9), (3, 16, 96, 19), (4, 8, 96, 22)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_config_gives_tiny_cuda_nn_our_resolutions_in_its_float32(shape):
    levels = make_levels(*shape)
    given = tinycudann_config(levels, 8)
    growth = np.float32(given["per_level_scale"])
    assert resolutions(given["n_levels"], given["base_resolution"], growth) == [level.resolution for level in levels]
    assert growth <= np.float32((shape[2] / shape[1]) ** (1 / max(shape[0] - 1, 1)))
    assert growth == pytest.approx((shape[2] / shape[1]) ** (1 / max(shape[0] - 1, 1)), rel=2e-6)
    assert [min(-(-(level.resolution**3) // 8) * 8, 2 ** given["log2_hashmap_size"]) for level in levels] == [
        level.entries for level in levels
    ]


def test_another_layout_of_tiny_cuda_nn_is_noticed(monkeypatch):
    other = SimpleNamespace(params=torch.empty(7))
    monkeypatch.setitem(sys.modules, "tinycudann", SimpleNamespace(Encoding=lambda *given, **named: other))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    grid = HashGrid(make_levels(2, coarsest=3, finest=9, log2_entries=6), 2, "tinycudann")
    with pytest.raises(UserError, match="in 7 parameters; expected 192"):
        grid(torch.rand(2, 3))


def test_tiny_cuda_nn_is_given_our_parameters_in_place_of_its_own(monkeypatch):
    """The package itself cannot run without a GPU: a stand-in that has its interface and our arithmetic."""

    class Encoding(HashGrid):
        def __init__(self, n_input_dims, config, dtype):
            assert (n_input_dims, dtype, config["n_features_per_level"]) == (3, torch.float32, 8)
            super().__init__(LEVELS, 8)
            self.params = self.parameters_flat
            del self.parameters_flat

        def table(self):
            return self.params.view(-1, 8)

    monkeypatch.setitem(sys.modules, "tinycudann", SimpleNamespace(Encoding=Encoding))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    true, found = grids("tinycudann")
    points = torch.rand(50, 3)
    expected, encoded = true(points.double()), found(points)
    assert_same(encoded, expected, 1e-5)
    expected.sum().backward()
    encoded.sum().backward()
    assert_same(found.parameters_flat.grad, true.parameters_flat.grad, 1e-4)
    axes = torch.rand(2), torch.rand(3), torch.rand(4)
    assert_same(found.lattice(*axes), true.lattice(*axes), 1e-5)
