"""A patient under the same X-rays in a grid that begins elsewhere."""

from dataclasses import replace

import numpy as np
import pytest

from tests.xr2ct.cohort import TINY, WINDOW, write_cohort
from xr2ct.cases import Cases, open_task
from xr2ct.errors import UserError
from xr2ct.models.registry import choose
from xr2ct.models.spider import Spider
from xr2ct.models.supervision import Supervision
from xr2ct.moved_grid import random_shift, randomly_moved, with_moved_grid
from xr2ct.sampling import voxel_to_pixel
from xr2ct.shards import IGNORE


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("moved"), 2)


@pytest.fixture(params=["parallel", "cone"])
def example(request, shard):
    """A case of random HU in a turned grid whose voxels are longer one way than the other."""
    example = Cases(open_task([shard], request.param, WINDOW)[1], request.param)[1]
    affine = np.array([[0, 3.0, 0.5, 7], [2.0, 0, 1, -5], [0.3, 1, 4, 11], [0, 0, 0, 1]])
    random = np.random.default_rng(0)
    ct_hu = random.integers(-1000, 1500, example.case.ct_hu.shape).astype(np.int16)
    return replace(example, case=replace(example.case, affine=affine, ct_hu=ct_hu))


@pytest.mark.parametrize("shift", [(2, -1, 3), (-2, 1, -3), (0, 0, 0)])
def test_a_voxel_keeps_its_place_its_hu_its_label_and_its_pixels(example, shift):
    moved = with_moved_grid(example, np.array(shift))  # z, y, x
    shape = np.array(example.case.ct_hu.shape)
    before, after = (voxel_to_pixel(one.xray.projection, one.case.affine) for one in (example, moved))
    for new in ([3, 5, 4], [2, 1, 3], shape - 4):
        old = np.array(new) + shift
        assert moved.case.ct_hu[tuple(new)] == example.case.ct_hu[tuple(old)]
        assert moved.case.label[tuple(new)] == example.case.label[tuple(old)]
        np.testing.assert_allclose(moved.case.affine @ [*new[::-1], 1], example.case.affine @ [*old[::-1], 1])
        np.testing.assert_allclose(after @ [*new[::-1], 1], before @ [*old[::-1], 1], atol=1e-9)
    assert moved.xray is example.xray


@pytest.mark.parametrize("by", [-2, 2])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_beyond_the_old_grid_the_ct_goes_on_and_no_label_is_known(example, axis, by):
    shift = np.zeros(3, int)
    shift[axis] = by
    moved = with_moved_grid(example, shift).case
    label, ct_hu, old = (np.moveaxis(one, axis, 0) for one in (moved.label, moved.ct_hu, example.case.ct_hu))
    new, last = (slice(0, 2), 0) if by < 0 else (slice(-2, None), -1)
    assert (label[new] == IGNORE).all()
    assert (label != IGNORE).sum() == label[2:].size
    for one in ct_hu[new]:
        np.testing.assert_array_equal(one, old[last])


def test_shifts_reach_both_ends_and_no_further():
    shifts = np.array([random_shift(2, [seed]) for seed in range(200)])
    assert (shifts.min(axis=0) == -2).all() and (shifts.max(axis=0) == 2).all()


def test_each_case_moves_alike_in_whatever_part_of_a_batch_it_is(shard):
    """Two processes with one case each move them as one process with both does, and the two not alike."""
    cases = Cases(open_task([shard], "parallel", WINDOW)[1], "parallel")
    both = randomly_moved([cases[0], cases[1]], 2, np.random.default_rng(5))
    alone = [randomly_moved([cases[i]], 2, np.random.default_rng(5))[0] for i in (0, 1)]
    for one, other in zip(both, alone, strict=True):
        np.testing.assert_array_equal(one.case.affine, other.case.affine)
    moves = [after.case.affine - before.case.affine for after, before in zip(both, (cases[0], cases[1]), strict=True)]
    assert not np.array_equal(*moves)


def test_training_reads_ct_and_x_rays_of_the_same_moved_grids(shard, monkeypatch):
    task, shards = open_task([shard], "parallel", WINDOW)
    cases = Cases(shards, "parallel")
    model = Spider(task, choose("spider", TINY | {"grid_shift": 1})[1])
    model.prepare(cases)
    told, read, intensity, decode = [], [], Supervision.intensity, Spider.decode
    monkeypatch.setattr(
        Supervision,
        "intensity",
        lambda self, examples, voxels: told.extend(examples) or intensity(self, examples, voxels),
    )
    monkeypatch.setattr(
        Spider, "decode", lambda self, maps, matrix, voxels: read.extend(matrix) or decode(self, maps, matrix, voxels)
    )
    for step in range(6):
        model.loss([cases[0], cases[1]], np.random.default_rng(step))
    assert len({tuple(one.case.affine[:3, 3]) for one in told}) > 4
    for one, matrix in zip(told, read, strict=True):
        np.testing.assert_allclose(matrix, voxel_to_pixel(one.xray.projection, one.case.affine))


@pytest.mark.parametrize("most", [20, 99])
def test_a_move_out_of_the_grid_is_refused(shard, most):
    task, _ = open_task([shard], "parallel", WINDOW)
    assert min(task.shape) == 20
    Spider(task, choose("spider", TINY | {"grid_shift": 19})[1])
    with pytest.raises(UserError, match=rf"'grid_shift' is {most}; expected less than"):
        Spider(task, choose("spider", TINY | {"grid_shift": most})[1])
