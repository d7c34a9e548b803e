"""Left is left, up is up: slices and edge letters of volumes stored in several orders."""

import numpy as np
import pytest

from pipeline.geometry import make_view
from xr2ct.planes import PLANES, Edges, cut, cut_aspect, cut_edges, interesting_voxel, to_ras, xray_edges

AXIAL, CORONAL, SAGITTAL = PLANES
AFFINE = np.array([[2.0, 0, 0, -7], [0, 3.0, 0, 11], [0, 0, 5.0, 100], [0, 0, 0, 1]])
SHAPE = (4, 5, 6)  # z, y, x
BEACON_MM = AFFINE @ [4, 1, 3, 1]  # to the patient's right, behind, at the head


def stored(flips):
    """A volume with one bright voxel at BEACON_MM, stored with some axes reversed, and its affine."""
    volume = np.zeros(SHAPE, np.int16)
    volume[3, 1, 4] = 1000
    affine = AFFINE.copy()
    for axis in flips:
        volume = np.flip(volume, 2 - axis)
        affine[:, 3] += affine[:, axis] * (SHAPE[2 - axis] - 1)
        affine[:, axis] *= -1
    return volume, affine


@pytest.mark.parametrize("flips", [(), (0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_the_beacon_appears_where_a_radiologist_expects_it(flips):
    volume, ras_affine = to_ras(*stored(flips))
    at = np.argwhere(volume == 1000)[0]
    np.testing.assert_allclose(ras_affine @ [*at, 1], BEACON_MM)
    shapes = {plane.name: cut(volume, plane, at).shape for plane in PLANES}
    assert shapes == {"axial": (5, 6), "coronal": (4, 6), "sagittal": (4, 5)}
    axial, coronal, sagittal = (np.argwhere(cut(volume, plane, at) == 1000)[0] for plane in PLANES)
    assert tuple(axial) == (3, 1)  # behind is below the middle row, patient right is left of the middle column
    assert tuple(coronal) == (0, 1)  # head is the first row
    assert tuple(sagittal) == (0, 3)  # behind is right


@pytest.mark.parametrize("flips", [(), (0,), (1, 2)])
def test_edges_of_slices(flips):
    _, affine = to_ras(*stored(flips))
    assert cut_edges(affine, AXIAL) == Edges(left="R", right="L", top="A", bottom="P")
    assert cut_edges(affine, CORONAL) == Edges(left="R", right="L", top="S", bottom="I")
    assert cut_edges(affine, SAGITTAL) == Edges(left="A", right="P", top="S", bottom="I")


def test_an_oblique_volume_shows_both_letters():
    turn = np.eye(4)
    turn[:2, :2] = np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
    edges = cut_edges(turn @ AFFINE, AXIAL)
    assert edges.right == "LP" and edges.left == "RA" and edges.top == "AL"


def test_aspect_is_in_millimetres():
    assert cut_aspect(AFFINE, CORONAL, (4, 6)) == pytest.approx(6 * 2 / (4 * 5))
    assert cut_aspect(AFFINE, SAGITTAL, (4, 5)) == pytest.approx(5 * 3 / (4 * 5))


@pytest.mark.parametrize("beam", ["parallel", "cone"])
@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("PA", Edges(left="R", right="L", top="S", bottom="I")),
        ("AP", Edges(left="L", right="R", top="S", bottom="I")),
        ("LAT", Edges(left="A", right="P", top="S", bottom="I")),
        ("RLAT", Edges(left="P", right="A", top="S", bottom="I")),
        ({"name": "oblique", "alpha_deg": 40.0}, Edges(left="RA", right="LP", top="S", bottom="I")),
    ],
)
def test_edges_of_xrays_follow_the_matrix(view, expected, beam):
    centre = np.array([30.0, -12.0, 250.0])
    placed = make_view(view, centre, beam=beam, detector_px=(20, 30), pixel_mm=4.0, sdd_mm=900.0, sod_mm=700.0)
    assert xray_edges(placed.projection(), centre) == expected
    assert xray_edges(2.5 * placed.projection(), centre) == expected


def test_edges_of_an_xray_use_the_perspective():
    # u = x / y, v = -z / y: at (100, 50, 0) a step to the front moves the shadow twice as far as one to the right.
    projection = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0]])
    edges = xray_edges(projection, np.array([100.0, 50.0, 0.0]))
    assert (edges.right, edges.top) == ("PR", "S")


def test_edges_of_a_mirrored_matrix_are_mirrored():
    centre = np.zeros(3)
    projection = make_view("PA", centre, beam="parallel", detector_px=(20, 30), pixel_mm=4.0).projection()
    mirrored = np.array([[-1.0, 0, 29], [0, 1, 0], [0, 0, 1]]) @ projection
    assert xray_edges(mirrored, centre).left == "L"


def test_the_cut_goes_through_labels_else_bone_else_the_middle():
    ct, label = np.zeros((6, 5, 4), np.int16), np.zeros((6, 5, 4), np.uint8)
    assert interesting_voxel(ct, label).tolist() == [3, 2, 2]
    ct[1, 2, 3] = 900
    label[0, 0, 0] = 255
    assert interesting_voxel(ct, label).tolist() == [1, 2, 3]
    label[5, 4, 1] = label[3, 4, 1] = 2
    assert interesting_voxel(ct, label).tolist() == [4, 4, 1]
