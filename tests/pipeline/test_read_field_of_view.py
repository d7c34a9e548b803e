"""Round pictures and bodies that are wider than the picture."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from pipeline.read.field_of_view import check_field_of_view

SHAPE = (64, 60, 24)
AFFINE = np.diag([-4.0, -4.0, 5.0, 1.0])


def chest(*, centre=(30, 28), half_mm=(20, 14), circle=False, padding=-2048, cut=()) -> np.ndarray:
    """HU (i, j, k): an elliptic body in noisy air; the slices in `cut` show it shifted to the patient's side."""
    air = np.random.default_rng(1).normal(-1000, 15, SHAPE)
    i, j, k = np.indices(SHAPE)
    shift = np.isin(k, cut) * 20
    body = ((i - centre[0] - shift) / half_mm[0]) ** 2 + ((j - centre[1]) / half_mm[1]) ** 2 < 1
    ct = np.where(body, 40, air)
    if circle:
        ct[np.hypot((i - 31.5) / 32, (j - 29.5) / 30) > 1] = padding
    return np.rint(ct).astype(np.int16)


@pytest.mark.parametrize("circle", [False, True])
@pytest.mark.parametrize(("cut", "flagged"), [((), False), ((3,), False), ((3, 4, 5), True), (range(24), True)])
def test_a_body_cut_in_more_than_a_twentieth_of_the_slices_is_told(circle, cut, flagged):
    found = check_field_of_view(chest(circle=circle, cut=list(cut)), AFFINE)
    assert found == ({"FOV_CIRCLE"} if circle else set()) | ({"TRUNC_FOV"} if flagged else set())


def test_a_round_picture_is_cut_at_its_rim_not_at_the_edges_of_the_file():
    wide = {"centre": (30, 12), "half_mm": (28, 10)}
    assert check_field_of_view(chest(circle=True, **wide), AFFINE) == {"FOV_CIRCLE", "TRUNC_FOV"}
    assert check_field_of_view(chest(**wide), AFFINE) == set()


def test_the_sides_are_the_patients_whatever_the_axes_of_the_file():
    """Cut at the left in a file with axes z, x, y: the same; wide in front and behind only: not cut."""
    source = nib.Nifti1Image(chest(cut=list(range(24))), AFFINE)
    for axes in ([1, 2, 0], [2, 0, 1], [0, 1, 2]):
        turned = source.as_reoriented(np.array([[axis, -1] for axis in axes]))
        assert check_field_of_view(np.asarray(turned.dataobj), turned.affine) == {"TRUNC_FOV"}
    deep = chest(half_mm=(20, 60))
    assert check_field_of_view(deep, AFFINE) == set()


def test_air_of_one_value_is_no_circle():
    """Thresholded air is constant in and outside any circle; and a corner with tissue is no padding."""
    ct = chest()
    assert check_field_of_view(np.where(ct < -900, -1024, ct).astype(np.int16), AFFINE) == set()
    assert "FOV_CIRCLE" not in check_field_of_view(chest(circle=True, padding=0), AFFINE)


def test_tiny_volumes_have_no_corners():
    assert check_field_of_view(np.full((2, 2, 2), -1000, np.int16), AFFINE) == set()
