"""Resampling: the world stays where it is, whatever the file's axes; nothing is lost, nothing leaks in."""

from itertools import permutations, product

import numpy as np
import pytest

from pipeline.resample import cube_affine, resample_ct, resample_label, smoothing_sigma, to_closest_ras
from tests.phantoms import labelled_phantom

CUBE, SPACING = 32, 4.0


def source():
    """Asymmetric phantom in (i, j, k) = (x, y, z) order on 3 x 4 x 5 mm voxels, and its affine."""
    ct, label = labelled_phantom((18, 22, 26))
    affine = np.diag([3.0, 4.0, 5.0, 1.0])
    affine[:3, 3] = [-30.0, 17.0, 250.0]
    return ct.T.copy(), label.T.copy(), affine


def reorder(array, affine, order, flips):
    """The same image stored with other axes: permuted by `order`, then flipped."""
    moved, change = array.transpose(order), np.zeros((4, 4))
    change[3, 3] = 1
    for new, old in enumerate(order):
        change[old, new] = -1 if flips[new] else 1
        change[old, 3] = moved.shape[new] - 1 if flips[new] else 0
    for axis, flip in enumerate(flips):
        moved = np.flip(moved, axis) if flip else moved
    return moved, affine @ change


def on_cube(ct, label, affine):
    data, ras = to_closest_ras(ct, affine)
    ids, _ = to_closest_ras(label, affine)
    target = cube_affine(data.shape, ras, cube=CUBE, spacing_mm=SPACING)
    return resample_ct(data, ras, target, CUBE), resample_label(ids, ras, target, CUBE), target


def test_all_48_orientations_of_a_file_give_the_same_array():
    ct, label, affine = source()
    expected = on_cube(ct, label, affine)
    for order, flips in product(permutations(range(3)), product([False, True], repeat=3)):
        moved_ct, moved_affine = reorder(ct, affine, order, flips)
        moved_label, _ = reorder(label, affine, order, flips)
        for got, want in zip(on_cube(moved_ct, moved_label, moved_affine), expected, strict=True):
            np.testing.assert_array_equal(got, want, err_msg=f"{order} {flips}")


def test_structures_keep_their_place_in_the_world():
    ct, label, affine = source()
    _, stored, target = on_cube(ct, label, affine)
    for value in (1, 2, 3):
        before = (affine @ np.append(np.argwhere(label == value).mean(axis=0), 1))[:3]
        after = (target @ np.append(np.argwhere(stored == value).mean(axis=0)[::-1], 1))[:3]
        np.testing.assert_allclose(after, before, atol=1.2)


def test_ct_and_label_stay_on_each_other():
    ct, label, affine = source()
    stored, ids, _ = on_cube(ct, label, affine)
    assert np.median(stored[ids == 1]) == pytest.approx(300, abs=30)
    assert np.median(stored[ids == 3]) == pytest.approx(-600, abs=100)


def test_the_cube_is_centred_on_the_ct_to_half_a_voxel_fraction():
    target = cube_affine((11, 20, 31), np.diag([2.0, 3.0, 1.0, 1.0]), cube=8, spacing_mm=4.0)
    centre = target @ [3.5, 3.5, 3.5, 1]
    np.testing.assert_allclose(centre[:3], [10.0, 28.5, 15.0])
    np.testing.assert_array_equal(target[:3, :3], 4.0 * np.eye(3))


def test_resampling_a_ramp_is_exact_on_both_sides_of_zero():
    """HU = world x + 2 y - z: linear interpolation through the right affine reproduces it, half a voxel off does not."""
    affine = np.diag([2.0, 1.5, 2.5, 1.0])
    affine[:3, 3] = [-31.0, -20.0, -40.0]
    i, j, k = np.indices((32, 28, 33))
    x, y, z = (affine[axis, axis] * index + affine[axis, 3] for axis, index in enumerate((i, j, k)))
    target = cube_affine((32, 28, 33), affine, cube=8, spacing_mm=2.0)
    got = resample_ct((5 * x + 10 * y - 5 * z).astype(np.float32), affine, target, 8)
    zz, yy, xx = np.indices((8, 8, 8))
    wx, wy, wz = (target[axis, axis] * index + target[axis, 3] for axis, index in enumerate((xx, yy, zz)))
    np.testing.assert_allclose(got, 5 * wx + 10 * wy - 5 * wz, atol=0.51)


def test_a_sheared_grid_is_undone():
    """15 degrees of gantry tilt: a ball stays a ball at its place."""
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[1, 2] = 3.0 * np.tan(np.deg2rad(15))
    shape = (40, 44, 36)
    world = np.einsum("ab,bijk->aijk", affine[:3, :3], np.indices(shape)) + affine[:3, 3, None, None, None]
    middle = (affine @ [22.0, 20.0, 15.0, 1.0])[:3]
    ball = np.linalg.norm(world - middle[:, None, None, None], axis=0) < 24.0
    ct = np.where(ball, 500, -1000).astype(np.int16)
    target = cube_affine(shape, affine, cube=48, spacing_mm=3.0)
    stored = resample_ct(ct, affine, target, 48)
    zyx = np.argwhere(stored > -250)
    np.testing.assert_allclose((target @ np.append(zyx.mean(axis=0)[::-1], 1))[:3], middle, atol=0.5)
    np.testing.assert_allclose(np.ptp(zyx, axis=0) + 1, 16, atol=1)


def test_mass_is_kept_when_the_grid_gets_coarser():
    rng = np.random.default_rng(5)
    ct = np.full((60, 64, 40), -1000.0)
    ct[12:50, 10:50, 6:34] = rng.uniform(-200, 1200, (38, 40, 28))
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    target = cube_affine(ct.shape, affine, cube=32, spacing_mm=4.0)
    stored = resample_ct(ct, affine, target, 32)
    before, after = (np.clip(1 + volume / 1000.0, 0, None).sum() for volume in (ct, stored.astype(float)))
    assert after * 64.0 == pytest.approx(before * 2.0, rel=0.01)


@pytest.mark.parametrize("padding", [-1024, -2000, -3024])
def test_padding_of_the_scanner_never_darkens_the_body(padding):
    ct = np.full((40, 40, 20), padding, np.int16)
    ct[10:30, 10:30, 5:15] = 40
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    target = cube_affine(ct.shape, affine, cube=16, spacing_mm=3.0)
    reference = np.maximum(ct, -1024)
    np.testing.assert_array_equal(resample_ct(ct, affine, target, 16), resample_ct(reference, affine, target, 16))


def test_outside_the_source_is_air_and_metal_is_clipped():
    ct = np.full((10, 10, 10), 9000, np.int16)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    stored = resample_ct(ct, affine, cube_affine(ct.shape, affine, cube=16, spacing_mm=3.0), 16)
    assert (stored.min(), stored.max(), stored[0, 0, 0]) == (-1024, 3071, -1024)


def test_only_axes_that_get_coarser_are_smoothed():
    sigma = smoothing_sigma(np.diag([1.0, 3.0, 6.0, 1.0]), np.diag([3.0, 3.0, 3.0, 1.0]))
    np.testing.assert_allclose(sigma, [3 / 2.3548, 0, 0], rtol=1e-3)


@pytest.mark.parametrize("tilt", [0.0, 0.3])
@pytest.mark.parametrize("spacing", [4.0, 9.0])
def test_tiles_give_what_the_whole_source_gives(monkeypatch, tilt, spacing):
    """A part sees as much around it as smoothing and interpolation need; parts that see nothing are air."""
    ct, label, affine = source()
    c, s = np.cos(tilt), np.sin(tilt)
    affine = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ affine
    affine = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]]) @ affine
    cube = int(120 / spacing)
    target = cube_affine(ct.shape, affine, cube=cube, spacing_mm=spacing)
    found = []
    for voxels in (1 << 30, 2000):
        monkeypatch.setattr("pipeline.resample._TILE_VOXELS", voxels)
        found.append((resample_ct(ct, affine, target, cube), resample_label(label, affine, target, cube)))
    (hu, ids), (tiled_hu, tiled_ids) = found
    assert abs(tiled_hu.astype(int) - hu).max() <= 1 and (tiled_hu != hu).mean() < 1e-4
    assert (tiled_ids != ids).mean() < 1e-4 and len(np.unique(ids)) == 4
