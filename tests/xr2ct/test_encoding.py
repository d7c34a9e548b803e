"""Rows, layout and interpolation of the hash grid against numbers computed by hand; the fast path against the plain one."""

import pytest
import torch

from xr2ct.encoding import INITIAL_RANGE, HashGrid, make_levels, row_of_vertex


def row(level, x, y, z):
    return row_of_vertex(level, *(torch.tensor(axis) for axis in (x, y, z))).item()


def test_levels_have_the_resolutions_rows_and_offsets_of_the_layout():
    levels = make_levels(3, coarsest=4, finest=16, log2_entries=8)
    assert [level.scale for level in levels] == pytest.approx([3, 7, 15])
    assert [level.resolution for level in levels] == [4, 8, 16]
    assert [level.entries for level in levels] == [64, 256, 256]  # 8^3 = 512 does not fit into 2^8
    assert [level.offset for level in levels] == [0, 64, 320]
    assert [level.dense for level in levels] == [True, False, False]


def test_rows_of_a_dense_level_are_rounded_up_to_a_multiple_of_eight():
    assert make_levels(1, coarsest=5, finest=5, log2_entries=19)[0].entries == 128  # 5^3 = 125


def test_the_papers_grid_ends_at_the_volume_size_exactly():
    levels = make_levels(11, coarsest=16, finest=128, log2_entries=19)
    assert len(levels) == 11
    assert levels[0].resolution == 16
    assert levels[-1].resolution == 128


def test_dense_rows_run_fastest_along_x():
    level = make_levels(1, coarsest=4, finest=4, log2_entries=8)[0]
    assert row(level, 1, 2, 3) == 1 + 2 * 4 + 3 * 16
    assert row(level, 4, 0, 0) == 4  # one past the grid is the next row's first, as in tiny-cuda-nn
    assert row(level, 4, 3, 3) == 0  # 64 mod 64


def test_hashed_rows_are_the_xor_of_products_in_32_bits():
    level = make_levels(1, coarsest=100, finest=100, log2_entries=10)[0]
    # 5 * 2654435761 mod 2^32 = 387276917 and 7 * 805459861 mod 2^32 = 1343251731
    assert row(level, 3, 5, 7) == (3 ^ 387276917 ^ 1343251731) % 1024 == 357
    assert row(level, 3, 0, 0) == 3


def position_grid(levels):
    """A grid whose features are the vertex's own (x, y, z), so that interpolation gives the position back."""
    grid = HashGrid(levels, features=3)
    x, y, z = torch.meshgrid(*(torch.arange(levels[0].resolution),) * 3, indexing="ij")
    table = torch.zeros(levels[0].entries, 3)
    table[row_of_vertex(levels[0], x, y, z).flatten()] = torch.stack([x, y, z], dim=-1).reshape(-1, 3).float()
    grid.parameters_flat.data = table.flatten()
    return grid


def test_a_point_is_encoded_at_scale_times_x_plus_a_half():
    grid = position_grid(make_levels(1, coarsest=6, finest=6, log2_entries=10))
    points = torch.tensor([[0.1, 0.5, 0.8], [0.83, 0.2, 0.05]])
    torch.testing.assert_close(grid(points), points * 5 + 0.5)


def test_levels_follow_each_other_in_the_output():
    grid = HashGrid(make_levels(3, coarsest=4, finest=16, log2_entries=8), features=2)
    grid.parameters_flat.data.zero_()
    grid.parameters_flat.data.view(-1, 2)[64:320] = torch.tensor([1.0, 2.0])  # all rows of the second level
    encoded = grid(torch.rand(5, 3))
    torch.testing.assert_close(encoded, torch.tensor([[0.0, 0, 1, 2, 0, 0]]).expand(5, 6))


def test_parameters_start_small_and_differ():
    parameters = HashGrid(make_levels(2, coarsest=4, finest=8, log2_entries=8), features=4).parameters_flat
    assert 0.9 * INITIAL_RANGE < parameters.abs().max() <= INITIAL_RANGE
    assert parameters.unique().numel() > 0.9 * parameters.numel()


@pytest.mark.parametrize("log2_entries", [6, 14], ids=["hashed", "dense"])
def test_a_lattice_is_encoded_like_its_points_with_the_same_gradient(log2_entries):
    levels = make_levels(4, coarsest=3, finest=20, log2_entries=log2_entries)
    grid = HashGrid(levels, features=2)
    grid.parameters_flat.data.uniform_(-1, 1)
    z, y, x = torch.tensor([0.02, 0.5, 0.51, 0.97]), torch.tensor([0.3, 0.9]), torch.tensor([0.0, 0.4, 0.7])
    points = torch.stack(torch.meshgrid(z, y, x, indexing="ij")[::-1], dim=-1).reshape(-1, 3)
    scattered, together = grid(points), grid.lattice(z, y, x)
    torch.testing.assert_close(together.reshape(-1, 8), scattered)

    pull = torch.rand(4, 2, 3, 8)
    (expected,) = torch.autograd.grad(scattered, grid.parameters_flat, pull.reshape(-1, 8))
    (found,) = torch.autograd.grad(together, grid.parameters_flat, pull)
    torch.testing.assert_close(found, expected)
