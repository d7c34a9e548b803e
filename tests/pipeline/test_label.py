"""Labels: by name, on the voxels of their CT, with an honest status for each structure."""

import nibabel as nib
import numpy as np
import pytest

from pipeline.errors import CaseError
from pipeline.ingest import ingest
from pipeline.label import (
    ABSENT,
    COMPLETE,
    CUT,
    NOT_ANNOTATED,
    _to_structures,
    check_ids,
    label,
    label_status,
    lost_from_source,
    place_in_source,
    touching,
    values_in,
)
from pipeline.nifti import load_nifti
from tests.cohorts import write_nifti
from tests.pipeline.records import fetched

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
    got = _to_structures(ids, NAMES | {118: NAMES[117]}, ["costal_cartilages", "kidney"])
    np.testing.assert_array_equal(got, [[[0, 0, 2, 2, 1]]])


@pytest.mark.parametrize(("ids", "code"), [([[[0, 9]]], "E_LABEL_VALUES"), ([[[0, 0]]], "E_LABEL_EMPTY")])
def test_labels_that_say_nothing_or_nonsense_are_refused(ids, code):
    with pytest.raises(CaseError, match=code):
        check_ids(np.array(ids, np.uint8), NAMES)


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


def test_every_face_of_the_source_is_an_edge():
    ids = np.zeros((5, 6, 7), np.uint8)
    ids[2, 2, 2] = 9
    for value, at in enumerate([(0, 2, 2), (4, 2, 2), (2, 0, 2), (2, 5, 2), (2, 2, 0), (2, 2, 6)], start=1):
        ids[at] = value
    assert touching(ids) == {0, 1, 2, 3, 4, 5, 6} and values_in(ids) == {0, 1, 2, 3, 4, 5, 6, 9}
    assert values_in(ids[::-1, :, ::2].astype(np.int16)) == {0, 1, 2, 3, 4, 5, 6, 9}


def test_what_a_leaning_source_has_beyond_the_cube_is_lost():
    """Slices lean towards y: the voxel at the head end lies 8 mm further in front than its index says."""
    affine = np.eye(4)
    affine[1, 2] = 0.5
    ids = np.zeros((20, 20, 20), np.uint8)
    ids[10, 12, 16], ids[10, 12, 2] = 1, 2  # y = 20 and 13 mm
    cube = np.zeros((18, 18, 18), np.uint8)
    cube[5, 5, 5], cube[6, 6, 6] = 1, 2
    assert lost_from_source(ids, affine, np.eye(4), cube) == {1}


INSIDE = (slice(3, 6), slice(4, 8), slice(5, 8))
SHAPE = (20, 22, 24)
FACES = [(axis, end) for axis in range(3) for end in ("first", "last")]


def status_of(folder, liver, axes):
    """Label status of spleen, liver, kidney through the stages; the cube reaches 12 mm and more beyond the CT."""
    ids = np.zeros(SHAPE, np.uint8)
    ids[INSIDE] = 1
    ids[liver] = 5
    ct = np.random.default_rng(3).normal(0, 60, SHAPE)
    turn = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(axes))
    for name, data in (("ct", np.rint(ct).astype(np.int16)), ("label", ids)):
        image = nib.Nifti1Image(data, AFFINE).as_reoriented(turn)
        write_nifti(folder / f"{name}.nii.gz", np.asarray(image.dataobj).T, image.affine)
    record = fetched(folder, folder / "ct.nii.gz", folder / "label.nii.gz")
    assert ingest(record, folder / "i", cube=48, spacing_mm=3.0)["status"] == "ok"
    done = label(folder / "i/case.json", folder / "l", structures=["spleen", "liver", "kidney", "maxilla"])
    assert not touching(load_nifti(folder / "l/label.nii.gz")) - {0}  # nothing reaches an edge of the cube itself
    return done["label_status"]


@pytest.mark.parametrize("axes", ["RAS", "LPI", "SAL"])
@pytest.mark.parametrize(("axis", "end"), FACES)
def test_what_the_ct_itself_cuts_is_partial_though_the_cube_holds_all_of_it(tmp_path, axis, end, axes):
    """A liver on the outermost voxels of the CT is cut, one voxel further in it is complete."""
    low, high = (0, 3) if end == "first" else (SHAPE[axis] - 3, SHAPE[axis])
    liver = [slice(7, 9), slice(9, 11), slice(10, 12)]
    for shift, expected in ((0, CUT), (1 if end == "first" else -1, COMPLETE)):
        liver[axis] = slice(low + shift, high + shift)
        assert status_of(tmp_path, tuple(liver), axes) == [COMPLETE, COMPLETE, expected, ABSENT, NOT_ANNOTATED]
