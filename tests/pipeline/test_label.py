"""Labels: by name, on the voxels of their CT, with an honest status for each structure."""

import numpy as np
import pytest

from pipeline.errors import CaseError
from pipeline.label import _to_structures, label_status, lost_from_source, place_in_source

AFFINE = np.array([[2.0, 0, 0, -10], [0, 3, 0, 5], [0, 0, 5, 40], [0, 0, 0, 1]])
NAMES = {1: "spleen", 2: "kidney_right", 3: "kidney_left", 117: "costal_cartilages"}


def test_labels_of_the_whole_ct_stay_and_a_cropped_box_goes_where_it_was_cropped():
    whole = np.random.default_rng(0).integers(0, 4, (6, 7, 8)).astype(np.uint8)
    np.testing.assert_array_equal(place_in_source(whole, AFFINE, AFFINE, whole.shape), whole)
    box_affine = AFFINE.copy()
    box_affine[:3, 3] = (AFFINE @ [1, 2, 3, 1])[:3]
    placed = place_in_source(whole[1:4, 2:7, 3:5], box_affine, AFFINE, whole.shape)
    np.testing.assert_array_equal(placed[1:4, 2:7, 3:5], whole[1:4, 2:7, 3:5])
    assert placed.sum() == whole[1:4, 2:7, 3:5].sum()


@pytest.mark.parametrize(
    ("shape", "move", "code"),
    [
        ((6, 7, 8), [1, 0, 0], "E_LABEL_AFFINE"),
        ((6, 7, 8), [0, 0, 0.5], "E_LABEL_AFFINE"),
        ((5, 7, 8), [0, 0.02, 0], "E_LABEL_AFFINE"),
        ((6, 7, 9), [0, 0, 0], "E_LABEL_SHAPE"),
        ((3, 3, 3), [4, 0, 0], "E_LABEL_SHAPE"),
        ((3, 3, 3), [-1, 0, 0], "E_LABEL_SHAPE"),
    ],
)
def test_labels_beside_their_ct_are_refused(shape, move, code):
    affine = AFFINE.copy()
    affine[:3, 3] = (AFFINE @ [*move, 1])[:3]
    with pytest.raises(CaseError) as caught:
        place_in_source(np.ones(shape, np.uint8), affine, AFFINE, (6, 7, 8))
    assert caught.value.code == code


def test_another_spacing_is_refused():
    with pytest.raises(CaseError, match="E_LABEL_AFFINE"):
        place_in_source(np.ones((3, 3, 3), np.uint8), AFFINE @ np.diag([1, 1, 1.1, 1]), AFFINE, (6, 7, 8))


def test_ids_become_structures_by_name_after_the_correction():
    ids = np.array([[[0, 1, 2, 3, 118]]], np.uint8)
    got = _to_structures(ids, NAMES, ["costal_cartilages", "kidney"], {118: 117})
    np.testing.assert_array_equal(got, [[[0, 0, 2, 2, 1]]])


@pytest.mark.parametrize(("ids", "code"), [([[[0, 9]]], "E_LABEL_VALUES"), ([[[0, 0]]], "E_LABEL_EMPTY")])
def test_labels_that_say_nothing_or_nonsense_are_refused(ids, code):
    with pytest.raises(CaseError, match=code):
        _to_structures(np.array(ids, np.uint8), NAMES, ["kidney"], {})


def test_status_tells_not_annotated_absent_cut_and_complete_apart():
    cube = np.zeros((5, 5, 5), np.uint8)
    cube[2, 2, 2] = 1  # complete
    cube[0, 2, 2] = 2  # cut by the cube
    cube[2, 2, 3] = 4  # inside the cube, but lost in part
    status = label_status(cube, {4, 5}, [True, True, True, True, True, False])
    assert status.tolist() == [3, 3, 2, 1, 2, 2, 0]


def test_what_the_source_or_the_cube_cuts_is_lost():
    """Cube of 10 voxels of 2 mm from x = 4: source voxels (1 mm) 3 to 23 lie inside."""
    source = np.zeros((40, 40, 40), np.uint8)
    affine, target = np.eye(4), np.diag([2.0, 2.0, 2.0, 1.0])
    target[:3, 3] = 4.0
    cube = np.zeros((10, 10, 10), np.uint8)
    for value, voxels in ((1, [(10, 10, 10)]), (2, [(10, 10, 10), (30, 10, 10)]), (3, [(10, 2, 10)]), (4, [(0, 9, 9)])):
        for at in voxels:
            source[tuple(np.add(at, value) if value < 3 else at)] = value
    cube[4, 4, 4], cube[5, 5, 5] = 1, 2
    source[12, 10, 14] = 5  # inside, but too small for the cube
    assert lost_from_source(source, affine, target, cube) == {2, 3, 4, 5}
