"""Labels that cannot be a person's: mirrored, swapped, upside down."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.anatomy import check_anatomy
from pipeline.errors import CaseError

AFFINE = np.array([[2.0, 0, 0, -40], [0, 3, 0, 5], [0, 0, 5, 40], [0, 0, 0, 1]])
NAMES = {2: "kidney_right", 3: "kidney_left", 5: "liver", 27: "vertebrae_L5", 28: "vertebrae_L4", 34: "vertebrae_T12"}


def person() -> np.ndarray:
    """Ids (i, j, k) on 2 x 3 x 5 mm, i to the right and k to the head: kidneys of 0.6 ml, three vertebrae of 0.9 ml."""
    ids = np.zeros((40, 20, 30), np.uint8)
    ids[30:35, 4:8, 10:11] = ids[30:35, 4:7, 11:12] = 2
    ids[5:10, 4:8, 10:11] = ids[5:10, 4:7, 11:12] = 3
    for value, k in ((27, 4), (28, 8), (34, 12)):
        ids[18:23, 2:5, k : k + 2] = value
    return ids


def code(ids, affine=AFFINE, names=NAMES) -> str:
    try:
        check_anatomy(ids, affine, names)
    except CaseError as error:
        assert "/" not in error.reason and len(error.reason) < 200
        return error.code
    return ""


def test_a_person_passes():
    assert code(person()) == "" and code(np.zeros((4, 4, 4), np.uint8)) == ""


def test_n20_swapped_labels_and_a_mirrored_image_are_refused():
    ids = person()
    swapped = ids.copy()
    swapped[ids == 2], swapped[ids == 3] = 3, 2
    assert code(swapped) == "E_LR_INCONSISTENT"
    assert code(ids[::-1]) == "E_LR_INCONSISTENT"
    assert code(ids, np.diag([-1.0, 1, 1, 1]) @ AFFINE) == "E_LR_INCONSISTENT"
    with pytest.raises(CaseError, match="kidney_left lies 50 mm to the patient's right of kidney_right"):
        check_anatomy(swapped, AFFINE, NAMES)


def test_n20_a_volume_upside_down_and_mixed_vertebrae_are_refused():
    ids = person()
    assert code(ids[:, :, ::-1]) == "E_LABEL_ORDER"
    mixed = ids.copy()
    mixed[ids == 28], mixed[ids == 34] = 34, 28
    with pytest.raises(CaseError, match="vertebrae_L4 lies 20 mm above vertebrae_T12"):
        check_anatomy(mixed, AFFINE, NAMES)


def test_crumbs_and_structures_that_nearly_touch_the_middle_prove_nothing():
    ids = person()
    ids[ids == 3] = 0
    ids[36:38, 4:5, 10:12] = 3  # 0.12 ml of the left kidney on the right side
    assert code(ids) == ""
    ids = person()
    ids[ids == 2] = 0
    ids[3:8, 4:8, 10:11] = ids[3:8, 4:7, 11:12] = 2  # 4 mm on the wrong side, below the 5 mm
    ids[ids == 3] = 0
    ids[5:10, 8:12, 10:11] = ids[5:10, 8:11, 11:12] = 3
    assert code(ids) == ""


def test_a_small_twin_is_a_crumb_of_the_large_one():
    """0.6 ml on the wrong side of a structure of 6 ml: no proof; of one of 2 ml: proof."""
    for half, expected in ((10, ""), (3, "E_LR_INCONSISTENT")):
        ids = np.zeros((40, 40, 30), np.uint8)
        ids[5:15, 0:2, 0 : 2 * half] = 2  # the right one, on the left: 600 mm3 per two slices
        ids[30:40, 0:2, 0:2] = 3
        assert code(ids) == expected


def test_ids_that_share_a_name_are_one_structure_and_unnamed_ids_do_not_matter():
    ids = person()
    ids[30:32][ids[30:32] == 2] = 9
    ids[0, 0, 0] = 200
    assert code(ids, names=NAMES | {9: "kidney_right"}) == ""
    ids[ids == 3] = 50
    assert code(ids[::-1], names={9: "kidney_right", 2: "kidney_right", 50: "kidney_left"}) == "E_LR_INCONSISTENT"
