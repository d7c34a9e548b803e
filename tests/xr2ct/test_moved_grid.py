"""A patient under the same X-rays in a grid that begins elsewhere."""

import numpy as np
import pytest

from tests.xr2ct.cohort import TINY, WINDOW, write_cohort
from xr2ct.cases import Cases, open_task
from xr2ct.errors import UserError
from xr2ct.models.registry import choose
from xr2ct.models.spider import Spider
from xr2ct.models.supervision import Supervision
from xr2ct.moved_grid import random_step, randomly_moved, with_moved_grid
from xr2ct.sampling import voxel_to_pixel
from xr2ct.shards import IGNORE


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("moved"), 2)


@pytest.fixture(params=["parallel", "cone"])
def example(request, shard):
    return Cases(open_task([shard], request.param, WINDOW)[1], request.param)[1]


def test_a_voxel_keeps_its_place_its_hu_its_label_and_its_pixels(example):
    step = np.array([2, -1, 3])  # z, y, x
    moved = with_moved_grid(example, step)
    shape = example.case.ct_hu.shape
    before, after = (voxel_to_pixel(one.xray.projection, one.case.affine) for one in (example, moved))
    for new in ([3, 5, 4], [0, 1, 0], [shape[0] - 3, shape[1] - 1, shape[2] - 4]):
        old = np.array(new) + step
        assert moved.case.ct_hu[tuple(new)] == example.case.ct_hu[tuple(old)]
        assert moved.case.label[tuple(new)] == example.case.label[tuple(old)]
        np.testing.assert_allclose(moved.case.affine @ [*new[::-1], 1], example.case.affine @ [*old[::-1], 1])
        np.testing.assert_allclose(after @ [*new[::-1], 1], before @ [*old[::-1], 1], atol=1e-9)
    assert moved.xray is example.xray


def test_beyond_the_old_grid_the_ct_goes_on_and_no_label_is_known(example):
    moved = with_moved_grid(example, np.array([0, 0, -2])).case
    assert (moved.label[..., :2] == IGNORE).all()
    assert (moved.label[..., 2:] != IGNORE).any()
    np.testing.assert_array_equal(moved.ct_hu[..., 0], example.case.ct_hu[..., 0])
    np.testing.assert_array_equal(moved.ct_hu[..., 1], example.case.ct_hu[..., 0])


def test_steps_reach_both_ends_and_no_further():
    steps = np.array([random_step(2, [seed]) for seed in range(200)])
    assert (steps.min(axis=0) == -2).all() and (steps.max(axis=0) == 2).all()


def test_each_case_moves_alike_in_whatever_part_of_a_batch_it_is(shard):
    """Two processes with one case each move them as one process with both does, and the two not alike."""
    cases = Cases(open_task([shard], "parallel", WINDOW)[1], "parallel")
    both = randomly_moved([cases[0], cases[1]], 2, np.random.default_rng(5))
    alone = [randomly_moved([cases[i]], 2, np.random.default_rng(5))[0] for i in (0, 1)]
    for one, other in zip(both, alone, strict=True):
        np.testing.assert_array_equal(one.case.affine, other.case.affine)
    moves = [after.case.affine - before.case.affine for after, before in zip(both, (cases[0], cases[1]), strict=True)]
    assert not np.array_equal(*moves)


def test_training_draws_its_voxels_from_moved_grids(shard, monkeypatch):
    task, shards = open_task([shard], "parallel", WINDOW)
    cases = Cases(shards, "parallel")
    model = Spider(task, choose("spider", TINY | {"grid_shift": 1})[1])
    model.prepare(cases)
    seen, original = [], Supervision.intensity
    monkeypatch.setattr(
        Supervision,
        "intensity",
        lambda self, examples, voxels: seen.extend(examples) or original(self, examples, voxels),
    )
    for step in range(6):
        model.loss([cases[0], cases[1]], np.random.default_rng(step))
    starts = {tuple(np.round(one.case.affine[:3, 3] - cases[0].case.affine[:3, 3], 3)) for one in seen}
    assert len(starts) > 4


def test_a_move_out_of_the_grid_is_refused(shard):
    task, _ = open_task([shard], "parallel", WINDOW)
    with pytest.raises(UserError, match=r"'grid_shift' is 99; expected less than"):
        Spider(task, choose("spider", TINY | {"grid_shift": 99})[1])
