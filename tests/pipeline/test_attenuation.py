"""Attenuation tables against NIST's published values, against xraylib where it is installed, and against themselves."""

import importlib.util

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.physics.attenuation import (
    HC_KEV_ANGSTROM,
    MATERIALS,
    PROCESSES,
    TABLES,
    form_factor_squared,
    incoherent_scattering,
    mass_attenuation,
)

# cm2/g. Water, air and aluminium at 20, 60, 100, 150 keV: NIST X-Ray Mass Attenuation Coefficients (Hubbell & Seltzer).
NIST = {
    ("water", 20.0): 0.8096,
    ("water", 60.0): 0.2059,
    ("water", 100.0): 0.1707,
    ("water", 150.0): 0.1505,
    ("aluminium", 20.0): 3.441,
    ("aluminium", 60.0): 0.2778,
    ("aluminium", 100.0): 0.1704,
    ("aluminium", 150.0): 0.1378,
    ("air", 20.0): 0.7779,
    ("air", 60.0): 0.1875,
    ("air", 100.0): 0.1541,
    ("air", 150.0): 0.1356,
    # XCOM mixtures: ICRU four-component soft tissue and ICRP cortical bone.
    ("soft_tissue", 20.0): 0.762,
    ("soft_tissue", 60.0): 0.2025,
    ("soft_tissue", 120.0): 0.1596,
    ("bone", 20.0): 3.828,
    ("bone", 60.0): 0.3102,
    ("bone", 120.0): 0.1666,
}
THOMSON_CM2 = 0.07940787e-24  # classical electron radius squared (CODATA)
PER_MOL = 6.02214076e23


@pytest.mark.parametrize(("material", "energy_kev"), NIST)
def test_total_is_nists(material, energy_kev):
    total = mass_attenuation(material, np.array([energy_kev]))[0]
    assert total == pytest.approx(NIST[material, energy_kev], rel=1e-3)


def test_water_at_60_kev_scatters_as_xcom_says():
    energy = np.array([60.0])
    assert mass_attenuation("water", energy, "compton")[0] == pytest.approx(0.1770, rel=3e-3)
    assert mass_attenuation("water", energy, "photoelectric")[0] == pytest.approx(0.0151, rel=2e-2)
    assert mass_attenuation("water", energy, "rayleigh")[0] == pytest.approx(0.0138, rel=2e-2)


@pytest.mark.parametrize("material", MATERIALS)
def test_parts_sum_to_the_total(material):
    energy = np.geomspace(1, 150, 333)
    parts = sum(mass_attenuation(material, energy, process) for process in PROCESSES)
    np.testing.assert_allclose(parts, mass_attenuation(material, energy), rtol=1e-12)


@pytest.mark.parametrize(
    ("material", "edge_kev", "step"),
    # NIST at the K edges: aluminium 362.1 -> 3957 cm2/g; calcium 119.7 -> 1023 cm2/g, 0.20993 of cortical bone.
    [("aluminium", 1.559, 3957 - 362.1), ("bone", 4.0385, 0.20993 * (1023 - 119.7))],
)
def test_k_edges_are_steps(material, edge_kev, step):
    below, above = mass_attenuation(material, np.array([edge_kev - 1e-3, edge_kev + 1e-3]))
    assert above - below == pytest.approx(step, rel=1e-2)


@pytest.mark.parametrize("material", MATERIALS)
def test_table_agrees_with_xraylib(material):
    xraylib = pytest.importorskip("xraylib")
    spec = importlib.util.spec_from_file_location("make_attenuation", TABLES / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    energy = np.exp(np.random.default_rng(0).uniform(np.log(1), np.log(150), 500))
    expected = [make.mixed(material, lambda z, e=e: xraylib.CS_Total(z, float(e))) for e in energy]
    np.testing.assert_allclose(mass_attenuation(material, energy), expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("material", "z_over_a", "z_squared_over_a"),
    # By hand from mass fractions, charges and atomic weights: H 1.008, O 15.999, Al 26.982.
    [
        ("water", 0.111894 / 1.008 + 0.888106 * 8 / 15.999, 0.111894 / 1.008 + 0.888106 * 64 / 15.999),
        ("aluminium", 13 / 26.982, 169 / 26.982),
    ],
)
def test_form_factors_reach_their_limits(material, z_over_a, z_squared_over_a):
    ends = np.array([0.0, 12.0])
    np.testing.assert_allclose(form_factor_squared(material, ends)[0], z_squared_over_a, rtol=2e-3)
    np.testing.assert_allclose(incoherent_scattering(material, ends), [0.0, z_over_a], rtol=2e-3)


@pytest.mark.parametrize("material", MATERIALS)
@pytest.mark.parametrize("energy_kev", [20.0, 60.0, 120.0])
def test_form_factors_integrate_to_the_cross_sections(material, energy_kev):
    """Holds only if x has the unit of the tables: a wrong factor in it moves both integrals by tens of per cent."""
    cosine = np.linspace(-1, 1, 100_001)
    x = energy_kev / HC_KEV_ANGSTROM * np.sqrt((1 - cosine) / 2)
    thomson = THOMSON_CM2 * (1 + cosine**2) / 2
    ratio = 1 / (1 + energy_kev / 510.998950 * (1 - cosine))
    klein_nishina = THOMSON_CM2 * ratio**2 / 2 * (ratio + 1 / ratio - 1 + cosine**2)
    for process, differential in (
        ("rayleigh", thomson * form_factor_squared(material, x)),
        ("compton", klein_nishina * incoherent_scattering(material, x)),
    ):
        integral = 2 * np.pi * PER_MOL * np.trapezoid(differential, cosine)
        expected = mass_attenuation(material, np.array([energy_kev]), process)[0]
        assert integral == pytest.approx(expected, rel=6e-3)


@pytest.mark.parametrize("energy_kev", [0.5, 151.0, -1.0, np.nan])
def test_energy_outside_the_tables_is_refused(energy_kev):
    with pytest.raises(UserError, match=r"energy_kev .* for the attenuation of bone; expected 1 to 150 keV"):
        mass_attenuation("bone", np.array([60.0, energy_kev]))


def test_ends_of_the_tables_are_inside():
    assert mass_attenuation("water", np.array([1.0, 150.0])).shape == (2,)


def test_unknown_names_are_refused():
    for ask in (mass_attenuation, form_factor_squared, incoherent_scattering):
        with pytest.raises(UserError, match="material 'lead' is not known; expected one of: air, soft_tissue"):
            ask("lead", np.array([1.0]))
    with pytest.raises(UserError, match="process 'pair' is not known; expected one of: photoelectric"):
        mass_attenuation("water", np.array([60.0]), "pair")
