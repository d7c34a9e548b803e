"""Derived cases: smooth, invertible, bounded, the same field for CT and labels, the same bytes for the same seed."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.deform import Strength, derive_case, min_jacobian, random_deformation
from tests.phantoms import labelled_phantom

STRENGTH = Strength(40.0, 10.0, 6.0, 4.0, 0.05, 0.0, 0.0)
STILL = Strength(40.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("seed", range(4))
def test_fields_are_bounded_and_invertible(seed):
    field = random_deformation(np.random.default_rng(seed), (30, 34, 38), 3.0, STRENGTH)
    half_diagonal = 3.0 * np.linalg.norm(np.array([30, 34, 38]) / 2)
    rigid = 6.0 * 3**0.5 + half_diagonal * (3**0.5 * np.deg2rad(4.0) * 1.1 + 0.05 * 4 / 3)
    assert 1.0 < field.max_displacement_mm <= 10.0 + rigid
    assert field.max_displacement_mm == pytest.approx(np.linalg.norm(field.displacement_mm, axis=0).max(), rel=1e-5)
    assert field.min_jacobian > 0.2
    assert field.min_jacobian == pytest.approx(min_jacobian(field.displacement_mm, 3.0), rel=1e-3)


def test_the_jacobian_of_a_scale_and_of_a_fold():
    z, y, x = np.indices((6, 7, 8), dtype=float) * 2.0
    assert min_jacobian(np.stack([0.1 * z, -0.2 * y, 0.3 * x]), 2.0) == pytest.approx(1.1 * 0.8 * 1.3)
    assert min_jacobian(np.stack([0 * z, 0 * y, -1.5 * x]), 2.0) == pytest.approx(-0.5)
    assert min_jacobian(np.stack([0.5 * y, 0.5 * z, 0 * x]), 2.0) == pytest.approx(1 - 0.25)


def test_a_wild_field_is_calmed_until_it_can_be_inverted():
    wild = replace(STRENGTH, control_spacing_mm=12.0, max_displacement_mm=80.0)
    assert random_deformation(np.random.default_rng(1), (24, 24, 24), 3.0, wild).min_jacobian > 0.2


def test_no_strength_no_change():
    ct, label = labelled_phantom()
    moved, ids, field = derive_case(ct, label, spacing_mm=3.0, strength=STILL, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(ids, label)
    np.testing.assert_allclose(moved, ct, atol=1)
    assert (field.max_displacement_mm, field.min_jacobian) == (0.0, 1.0)


def test_ct_and_labels_move_together_and_as_far_as_stated():
    ct, label = labelled_phantom((40, 44, 48))
    strength = replace(STRENGTH, structure_hu=5.0, noise_hu=3.0)
    moved, ids, field = derive_case(ct, label, spacing_mm=3.0, strength=strength, rng=np.random.default_rng(2))
    for value, hu in ((1, 300), (2, 800), (3, -600)):
        assert np.median(moved[ids == value]) == pytest.approx(hu, abs=25)
        shift = np.argwhere(ids == value).mean(axis=0) - np.argwhere(label == value).mean(axis=0)
        assert 3.0 * np.linalg.norm(shift) <= field.max_displacement_mm
    assert (ids != label).mean() > 0.005


def test_the_displacement_leads_back_to_the_parent():
    ct, label = labelled_phantom((40, 44, 48))
    _, ids, field = derive_case(ct, label, spacing_mm=3.0, strength=STRENGTH, rng=np.random.default_rng(4))
    for z, y, x in np.argwhere(ids == 1)[::50]:
        parent = np.rint([z, y, x] + field.displacement_mm[:, z, y, x] / 3.0).astype(int)
        assert label[tuple(parent)] == 1


def test_a_rotation_turns_about_the_centre():
    """Up to 10 degrees about each axis: the centre stays, the far corner moves by about angle times radius."""
    turn = replace(STILL, max_rotation_deg=10.0)
    moved = [random_deformation(np.random.default_rng(seed), (30, 34, 38), 3.0, turn) for seed in range(3)]
    for field in moved:
        np.testing.assert_allclose(field.displacement_mm.reshape(3, -1).mean(axis=1), 0, atol=1e-3)
    radius = 3.0 * np.linalg.norm(np.array([29, 33, 37]) / 2)
    assert 0.03 * radius < max(field.max_displacement_mm for field in moved) < 3**0.5 * np.deg2rad(10) * 1.1 * radius


def test_a_shift_by_half_a_voxel_keeps_fine_detail():
    """A wave of 4 voxels: cubic interpolation keeps more than 0.9 of it at any shift, linear only 0.71 half way."""
    x = np.indices((24, 24, 24))[2]
    ct = np.rint(500 * np.sin(np.pi / 2 * x)).astype(np.int16)
    label = np.zeros(ct.shape, np.uint8)
    kept = []
    for seed in range(12):
        shifted, _, _ = derive_case(
            ct, label, spacing_mm=3.0, strength=replace(STILL, max_shift_mm=3.0), rng=np.random.default_rng(seed)
        )
        kept.append(shifted[8:16, 8:16, 8:16].astype(float).std() / ct[8:16, 8:16, 8:16].std())
    assert min(kept) > 0.88


def test_noise_and_structure_changes_have_their_stated_size_and_leave_air_alone():
    ct, label = labelled_phantom((40, 44, 48))
    noisy, _, _ = derive_case(
        ct, label, spacing_mm=3.0, strength=replace(STILL, noise_hu=20.0), rng=np.random.default_rng(5)
    )
    body = ct == 20
    assert (noisy - ct)[body].std() == pytest.approx(20.0, rel=0.1)
    np.testing.assert_array_equal(noisy[ct == -1000], -1000)


def test_the_same_seed_is_the_same_case_and_another_seed_another():
    ct, label = labelled_phantom()
    first, second, other = (
        derive_case(ct, label, spacing_mm=3.0, strength=STRENGTH, rng=np.random.default_rng(seed))[0]
        for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
