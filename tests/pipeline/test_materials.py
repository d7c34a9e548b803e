"""Densities by hand arithmetic at every break point."""

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.physics import attenuation
from pipeline.physics.materials import DECOMPOSITIONS, MATERIALS, decompose, get_decomposition

# HU -> (g/cm3, material). Below 0 HU 0.001029 HU + 1.03, above 0.0005886 HU + 1.03, never negative; air up to -800 HU, bone
# above 350 HU: DeepDRR 1.2.2, evaluated by hand.
DEEPDRR = {
    -1024: (0.0, "air"),  # 1.03 - 1.053696 < 0
    -1001: (0.0, "air"),  # 1.03 - 1.030029 < 0
    -1000: (0.001, "air"),
    -801: (0.205771, "air"),
    -800: (0.2068, "air"),
    -799: (0.207829, "soft_tissue"),
    -1: (1.028971, "soft_tissue"),
    0: (1.03, "soft_tissue"),  # not 1: water attenuates 1.5 % too much in this mode, as in DeepDRR
    1: (1.0305886, "soft_tissue"),
    350: (1.23601, "soft_tissue"),
    351: (1.2365986, "bone"),
    1000: (1.6186, "bone"),
    3071: (2.8375906, "bone"),
}

# HU -> g/cm3 of air, soft tissue, bone. Density 0.0010133 HU + 1.0145 up to 50 HU, 0.0005749 HU + 1.0364 from there; air 1
# to 0 from -1000 to -900, bone 0 to 1 from 50 to 1300 HU.
SMOOTH = {
    -1024: (0, 0, 0),  # 1.0145 - 1.0376 < 0
    -1000: (0.0012, 0, 0),
    -950: (0.5 * 0.051865, 0.5 * 0.051865, 0),
    -900: (0, 0.10253, 0),
    -500: (0, 0.50785, 0),
    0: (0, 1.0145, 0),
    49: (0, 1.0641517, 0),
    50: (0, 1.065145, 0),
    300: (0, 0.8 * 1.20887, 0.2 * 1.20887),  # (300 - 50) / 1250 = 0.2
    675: (0, 0.5 * 1.4244575, 0.5 * 1.4244575),
    1300: (0, 0, 1.78377),
    3071: (0, 0, 2.8019179),
}


def volume(hu, dtype=np.int16):
    return np.array(hu, dtype).reshape(1, 1, -1)


def test_deepdrr_by_hand():
    found = decompose(volume(list(DEEPDRR)), get_decomposition("deepdrr-v1"))
    assert found.shape == (3, 1, 1, len(DEEPDRR)) and found.dtype == np.float32
    for voxel, (hu, (density, material)) in enumerate(DEEPDRR.items()):
        expected = [density if name == material else 0 for name in ("air", "soft_tissue", "bone")]
        np.testing.assert_allclose(found[:, 0, 0, voxel], expected, rtol=1e-6, atol=2e-7, err_msg=str(hu))


def test_deepdrr_has_one_material_in_every_voxel():
    hu = np.arange(-1024, 3072)
    air, soft, bone = decompose(volume(hu), DECOMPOSITIONS["deepdrr-v1"])[:, 0, 0]
    density = np.maximum(np.where(hu < 0, 0.001029, 0.0005886) * hu + 1.03, 0)
    np.testing.assert_allclose(air, np.where(hu <= -800, density, 0), atol=2e-7, rtol=1e-6)
    np.testing.assert_allclose(bone, np.where(hu > 350, density, 0), atol=2e-7, rtol=1e-6)
    np.testing.assert_allclose(soft, np.where((hu > -800) & (hu <= 350), density, 0), atol=2e-7, rtol=1e-6)


def test_smooth_by_hand():
    found = decompose(volume(list(SMOOTH)), get_decomposition("smooth-v1"))
    for voxel, (hu, expected) in enumerate(SMOOTH.items()):
        np.testing.assert_allclose(found[:, 0, 0, voxel], expected, rtol=2e-6, atol=3e-7, err_msg=str(hu))


@pytest.mark.parametrize("name", DECOMPOSITIONS)
def test_parts_are_never_negative_and_their_sum_never_falls_with_hu(name):
    parts = decompose(volume(np.arange(-1024, 3072)), DECOMPOSITIONS[name])[:, 0, 0]
    assert parts.min() == 0
    assert np.diff(parts.sum(axis=0)).min() >= 0
    assert np.diff(parts.sum(axis=0)[30:]).min() > 0


def test_smooth_has_no_jump():
    """Largest step of any material between neighbouring HU, by hand: air's ramp falls by 0.1 g/cm3 over 100 HU at most."""
    smooth = decompose(volume(np.arange(-1024, 3072)), DECOMPOSITIONS["smooth-v1"])[:, 0, 0]
    sharp = decompose(volume(np.arange(-1024, 3072)), DECOMPOSITIONS["deepdrr-v1"])[:, 0, 0]
    assert np.abs(np.diff(smooth, axis=1)).max() < 0.004
    assert np.abs(np.diff(sharp, axis=1)).max() > 1.2


def test_smooth_gives_a_scanners_hu_back():
    """cm2/g at 70 keV by xraylib 4.3: air 0.17497, ICRU-4 soft tissue 0.19009, ICRP cortical bone 0.25487, water 0.19285."""
    hu = np.arange(-1000, 1601)
    parts = decompose(volume(hu), DECOMPOSITIONS["smooth-v1"])[:, 0, 0]
    back = 1000 * (np.array([0.17497, 0.19009, 0.25487]) @ parts / 0.19285 - 1)
    assert np.abs(back - hu)[hu <= 50].max() < 2
    assert np.abs(back - hu).max() < 60
    np.testing.assert_allclose(parts[:, hu == 1537].sum(), 1.92, rtol=1e-3)  # ICRP cortical bone, NIST density


def test_volumes_keep_their_shape_and_fractions_of_hu_are_met():
    hu = np.arange(24, dtype=np.float32).reshape(2, 3, 4) * 100 - 799.5
    found = decompose(hu, DECOMPOSITIONS["deepdrr-v1"])
    assert found.shape == (3, 2, 3, 4)
    density = 1.03 - 0.001029 * 799.5
    np.testing.assert_allclose(found[:, 0, 0, 0], [density / 2, density / 2, 0], rtol=1e-4)


def test_materials_are_those_of_the_attenuation_tables():
    assert MATERIALS == attenuation.MATERIALS[:3] == ("air", "soft_tissue", "bone")


def test_unknown_decomposition_is_refused():
    with pytest.raises(
        UserError, match="'smooth' is not known; expected one of: deepdrr-v1, smooth-v1. Did you mean 'smooth-v1'"
    ):
        get_decomposition("smooth")
    with pytest.raises(UserError, match="'' is not known; .* Correct materials"):
        get_decomposition("")
