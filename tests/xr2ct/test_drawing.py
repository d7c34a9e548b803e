"""Every way to choose the voxels of a step leaves none out of reach and is a function of its random numbers."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.phantoms import labelled_phantom
from xr2ct.drawing import DRAWS, blocks, surface_voxel
from xr2ct.sampling import Points
from xr2ct.shards import IGNORE

SHAPE = (12, 14, 9)
LABEL = labelled_phantom(SHAPE)[1]


def settings_of(**changes):
    values = {"points": 6, "run": 2, "scattered_points": 0, "block": 3, "surface_share": 0.0}
    return SimpleNamespace(**(values | changes))


def draw(name, random, **changes):
    return DRAWS[name](SHAPE, settings_of(**changes), [LABEL], random)


def counts(name, rounds, **changes):
    """How often each voxel is seen."""
    seen, random = np.zeros(SHAPE), np.random.default_rng(0)
    number = np.arange(seen.size).reshape(SHAPE)
    for _ in range(rounds):
        for voxels in draw(name, random, **changes):
            seen += np.bincount(voxels.pick(number).ravel(), minlength=seen.size).reshape(SHAPE)
    return seen


@pytest.mark.parametrize("name", DRAWS)
def test_every_voxel_is_equally_likely(name):
    seen = counts(name, 4000)
    assert seen.min() > 0.8 * seen.mean()
    assert seen.max() < 1.2 * seen.mean()


@pytest.mark.parametrize("name", ["blocks", "mixed"])
def test_boxes_on_surfaces_favour_them_and_leave_no_voxel_out(name):
    seen = counts(name, 1000, surface_share=0.5, block=2)
    surface = np.zeros(SHAPE, bool)
    for axis in range(3):
        change = np.diff(LABEL, axis=axis) != 0
        for side in (slice(1, None), slice(None, -1)):
            np.moveaxis(surface, axis, 0)[side] |= np.moveaxis(change, axis, 0)
    assert seen[surface].mean() > 1.5 * seen[~surface].mean()
    assert seen.min() > 0.2 * seen.mean()


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_is_a_function_of_its_random_numbers(name):
    first, again, other = (
        np.concatenate([v.pick(np.arange(LABEL.size).reshape(SHAPE)).ravel() for v in draw(name, random)])
        for random in map(np.random.default_rng, (1, 1, 2))
    )
    assert first.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize("name", DRAWS)
def test_all_draws_see_about_as_many_voxels(name):
    shape = (64, 64, 64)
    settings = settings_of(points=16, run=4, block=4)
    drawn = DRAWS[name](shape, settings, [np.zeros(shape, np.uint8)], np.random.default_rng(0))
    assert sum(voxels.pick(np.empty(shape)).size for voxels in drawn) == pytest.approx(16**3, rel=0.15)


def test_scattered_points_set_their_own_number():
    (voxels,) = draw("uniform", np.random.default_rng(0), scattered_points=50)
    assert voxels.index.shape == (50, 3)


def test_a_block_is_a_box_of_neighbours_also_across_the_border():
    (box,) = blocks(SHAPE, 27, 3, 0.0, [LABEL], np.random.default_rng(0)).index[None]
    assert len(np.unique(box, axis=0)) == 27
    for axis, n in enumerate(SHAPE):
        steps = (box[:, axis] - box[0, axis]) % n
        assert sorted(set(steps)) == [0, 1, 2]
    whole = blocks((4, 3, 2), 1, 9, 0.0, [LABEL], np.random.default_rng(0))
    assert len(np.unique(whole.index, axis=0)) == 24


def test_surface_voxels_are_of_a_structure_and_beside_another_label():
    random, found = np.random.default_rng(0), set()
    for _ in range(300):
        z, y, x = surface_voxel(LABEL, random)
        found.add(int(LABEL[z, y, x]))
        neighbours = {
            int(LABEL[place])
            for axis in range(3)
            for step in (-1, 1)
            for place in [tuple(np.array([z, y, x]) + step * np.eye(3, dtype=int)[axis])]
            if 0 <= place[axis] < SHAPE[axis]
        }
        assert neighbours != {int(LABEL[z, y, x])}
    assert found == set(np.unique(LABEL)) - {0}


@pytest.mark.parametrize("value", [0, 1, 255])
def test_without_a_surface_a_box_lies_anywhere(value):
    label = np.full(SHAPE, value, np.uint8)
    assert surface_voxel(label, np.random.default_rng(0)) is None
    assert isinstance(blocks(SHAPE, 27, 3, 1.0, [label], np.random.default_rng(0)), Points)


def test_ignored_voxels_are_no_structure():
    label = np.zeros(SHAPE, np.uint8)
    label[:6] = 255
    assert surface_voxel(label, np.random.default_rng(0)) is None


@pytest.mark.parametrize(("rows", "surface"), [(slice(6, None), 6), (slice(0, 6), 5)], ids=["above", "below"])
def test_a_surface_belongs_to_the_structure_on_either_side(rows, surface):
    label = np.zeros(SHAPE, np.uint8)
    label[rows] = 1
    found = [surface_voxel(label, np.random.default_rng(seed)) for seed in range(20)]
    assert {int(voxel[0]) for voxel in found if voxel is not None} == {surface}


def test_the_face_of_a_moved_grid_is_no_surface():
    """Beyond it nothing is known: a structure that goes on there has no border to be learned."""
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:] = 1
    label[6:] = IGNORE
    found = [surface_voxel(label, np.random.default_rng(seed)) for seed in range(60)]
    assert {voxel[0] for voxel in found if voxel is not None} == {2}
