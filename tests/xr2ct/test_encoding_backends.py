"""Every backend of the hash grid against the reference in float64, and the layout that tiny-cuda-nn would read.

On a GPU the backends that need one run there; without one Triton's kernels run in its interpreter, in a process of their own.
"""

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xr2ct.encoding import BACKENDS, HashGrid, Level, make_levels, present_backends, tinycudann_config
from xr2ct.encoding.buffers import FREE, empty_buffer
from xr2ct.encoding.grid import best_backend
from xr2ct.encoding.native import c_levels
from xr2ct.encoding.tinycuda import resolutions
from xr2ct.errors import UserError
from xr2ct.native import call, has_kernels

LEVELS = make_levels(5, coarsest=3, finest=40, log2_entries=10)  # 3, 6, 11, 22, 40: two dense, three hashed
HERE = [name for name in BACKENDS if name in present_backends()]
ON_GPU = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
NEEDS_KERNELS = pytest.mark.skipif(not has_kernels(), reason="the C kernels are not built")


def place_of(backend):
    """Where the backend computes."""
    return "cuda" if backend in ("triton", "tinycudann") and not INTERPRETED and ON_GPU else "cpu"


def grids(backend, features=8, levels=LEVELS):
    """The reference in float64 and a grid of `backend` with the same parameters, of size one."""
    true = HashGrid(levels, features).double().to(place_of(backend))
    torch.nn.init.uniform_(true.parameters_flat, -1, 1)
    true.parameters_flat.data = true.parameters_flat.data.float().double()
    found = HashGrid(levels, features, backend).to(place_of(backend))
    found.load_state_dict(true.state_dict())
    return true, found


def cloud(n=700):
    """Off the lattice, corners and faces of the cube, three points outside it (one below row 0); float32 exact in float64."""
    points = torch.rand(n, 3)
    points[:4] = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 1, 0.5], [1, 0.25, 0]])
    points[4:7] = torch.tensor([[-0.3, 0.2, 1.4], [2.5, -1.0, 0.5], [0.2, 0.3, -1.2]])
    return points


def assert_same(found, true, relative):
    assert (found - true).norm() <= relative * true.norm()
    assert (found - true).abs().max() <= 10 * relative * true.abs().max()


@pytest.mark.parametrize("features", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize("backend", HERE)
def test_scattered_points_and_their_gradient_are_the_references_in_float64(backend, features):
    true, found = grids(backend, features)
    place = place_of(backend)
    points, pull = cloud().to(place), torch.randn(700, 5 * features, device=place)
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
    pull = torch.randn(7, 4, 5, 40, device=place_of(backend))
    expected.backward(pull.double())
    encoded.backward(pull)
    assert_same(found.parameters_flat.grad, true.parameters_flat.grad, 1e-4)


@pytest.mark.parametrize("backend", HERE)
def test_fifty_steps_of_a_fit_lose_as_the_reference_does(backend):
    """The encoding and a linear layer follow a wave; the seeds fix everything but the rounding."""
    place = place_of(backend)
    z, y, x = (torch.arange(size) / 9 for size in (6, 7, 8))
    wave = torch.sin(5 * z[:, None, None] + 3 * y[:, None] * x).to(place)
    curves = []
    for name in ("reference", backend):
        torch.manual_seed(0)
        grid, read = HashGrid(LEVELS, 4, name).to(place), torch.nn.Linear(20, 1).to(place)
        optimizer = torch.optim.Adam([*grid.parameters(), *read.parameters()], lr=1e-2)
        curve = []
        for step in range(50):
            if step % 2:
                points = torch.rand(100, 3).to(place)
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


@pytest.mark.parametrize("backend", HERE)
def test_any_number_of_points_is_encoded_and_points_may_have_a_gradient(backend):
    true, found = grids(backend)
    assert found(torch.empty(0, 3, device=place_of(backend))).shape == (0, 40)
    for n in (1, 127, 129):
        points = torch.rand(n, 3, device=place_of(backend))
        assert_same(found(points), true(points.double()), 1e-5)
    points = points.requires_grad_()
    (expected,) = torch.autograd.grad(true(points.double()).square().sum(), points)
    (gradient,) = torch.autograd.grad(found(points).square().sum(), points)
    assert_same(gradient, expected, 1e-4)


@pytest.mark.parametrize("backend", [name for name in HERE if name != "tinycudann"])
def test_autocast_does_not_reach_the_encoding(backend):
    _, grid = grids(backend)
    points, axes = torch.rand(50, 3, device=place_of(backend)), [torch.rand(3) for _ in range(3)]
    for encode in (lambda: grid(points), lambda: grid.lattice(*axes)):
        found = []
        for enabled in (False, True):
            with torch.autocast(place_of(backend), torch.bfloat16, enabled=enabled):
                encoded = encode()
            found.append((encoded, *torch.autograd.grad(encoded.square().sum(), grid.parameters_flat)))
        assert found[1][0].dtype == torch.float32
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED or ON_GPU, reason="this run tests the kernels itself")
@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="the package triton is not installed")
def test_tritons_kernels_pass_these_tests_in_its_interpreter():
    files = [__file__, str(Path(__file__).with_name("test_reconstruct_backends.py"))]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "triton and not fifty", *files]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(".") >= 10, done.stdout  # pytest's dots: none of them was skipped for want of triton


def test_triton_refuses_a_table_on_the_cpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace())
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(
        UserError, match=r"'triton': the table is torch\.float32 on cpu; expected torch\.float32 on cuda"
    ):
        HashGrid(LEVELS, 8, "triton")(torch.rand(2, 3))


def test_auto_takes_the_fastest_present_backend(monkeypatch):
    on_cpu, on_gpu = (torch.device(name) for name in ("cpu", "cuda"))
    assert best_backend(on_cpu, torch.float32, 8) == ("native" if has_kernels() else "lattice")
    assert best_backend(on_cpu, torch.float64, 8) == "lattice"
    assert best_backend(on_cpu, torch.float32, 33) == "lattice"
    assert best_backend(torch.device("mps"), torch.float32, 8) == "reference"
    monkeypatch.setenv("XR2CT_NATIVE", "0")
    assert best_backend(on_cpu, torch.float32, 8) == "lattice"
    monkeypatch.setitem(sys.modules, "triton", None)
    assert best_backend(on_gpu, torch.float32, 8) == "reference"
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert best_backend(on_gpu, torch.float32, 8) == "triton"
    assert best_backend(on_gpu, torch.bfloat16, 8) == "reference"


def test_auto_computes_what_the_backend_that_it_takes_computes():
    auto, chosen = HashGrid(LEVELS, 8, "auto"), HashGrid(LEVELS, 8, "native" if has_kernels() else "lattice")
    chosen.load_state_dict(auto.state_dict())
    points, axes = torch.rand(70, 3), (torch.rand(2), torch.rand(3), torch.rand(4))
    assert torch.equal(auto(points), chosen(points))
    assert torch.equal(auto.lattice(*axes), chosen.lattice(*axes))


def test_a_buffer_begins_at_a_cache_line_and_its_memory_is_lent_again_only_when_nobody_holds_it():
    first = empty_buffer(3, 12347)
    assert first.shape == (3, 12347)
    assert first.data_ptr() % 64 == 0
    place, view = first.data_ptr(), first[1:]
    second = empty_buffer(12347, 3)  # of the same size
    assert second.data_ptr() != place
    del first
    assert empty_buffer(3, 12347).data_ptr() != place  # the view still reads it
    del view, second
    assert FREE.keys() >= {3 * 12347}
    kept = empty_buffer(3, 12347)
    assert 3 * 12347 not in FREE
    assert kept.data_ptr() % 64 == 0


def test_gradients_of_two_passes_do_not_share_memory():
    """The second pass must not write into the gradient that the first one left."""
    grid = HashGrid(LEVELS, 8, "auto")
    points = torch.rand(40, 3)
    (first,) = torch.autograd.grad(grid(points).sum(), grid.parameters_flat)
    kept = first.clone()
    (second,) = torch.autograd.grad(2 * grid(points).sum(), grid.parameters_flat)
    assert torch.equal(first, kept)
    torch.testing.assert_close(second, 2 * kept)


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
    with pytest.raises(
        UserError, match=r"'natve' is not known; expected one of: auto, reference, lattice.*mean 'native'\?"
    ):
        HashGrid(LEVELS, 8, "natve")


def test_hidden_kernels_are_said_to_be_missing(monkeypatch):
    monkeypatch.setenv("XR2CT_NATIVE", "0")
    with pytest.raises(
        UserError, match=r"'native' is not present here: .*XR2CT_NATIVE=0; expected one of: auto, reference, lattice"
    ):
        HashGrid(LEVELS, 8, "native")
    assert HashGrid(LEVELS, 8, "lattice")(torch.rand(2, 3)).shape == (2, 40)


def test_packages_of_other_backends_are_not_imported(monkeypatch):
    """They take seconds, and warn."""
    asked = []
    monkeypatch.setattr(importlib, "import_module", asked.append)
    HashGrid(LEVELS, 8, "native" if has_kernels() else "lattice")
    assert not asked


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


def test_parameters_travel_in_a_file_that_holds_tensors_only(tmp_path):
    """As the package's docstring shows it; `params` is what tiny-cuda-nn's modules call their one parameter."""
    _, grid = grids("reference")
    torch.save(grid.tinycudann_state(), tmp_path / "grid.pt")
    state = torch.load(tmp_path / "grid.pt", weights_only=True)
    (params,) = state.values()
    assert (list(state), params.shape, params.dtype) == (["params"], grid.parameters_flat.shape, torch.float32)
    assert (tmp_path / "grid.pt").stat().st_size < 4 * params.numel() + 4096  # and nothing of the memory around it
    back = HashGrid(LEVELS, 8, "auto")
    back.load_tinycudann_state(state)
    assert torch.equal(back.table(), grid.table())
    points = cloud()
    assert_same(back(points), grid(points), 1e-5)


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
