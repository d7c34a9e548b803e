"""Tube spectra against spekpy's own figures, with half-value layers from our attenuation tables."""

import sys
import types

import numpy as np
import pytest
from scipy.integrate import quad

from pipeline.errors import UserError
from pipeline.physics import spectra
from pipeline.physics.spectra import (
    Spectrum,
    effective_energy_kev,
    hvl_mm_al,
    load_spectrum,
    mean_energy_kev,
    spectrum_names,
    spectrum_of,
)

# mean keV, first HVL in mm Al, effective energy in Al in keV: spekpy 2.5.4, get_emean, get_hvl1 and get_eeff of
# Spek(kvp=..., th=12, dk=0.5) with its default attenuation data (PENELOPE's; ours are NIST's), rounded.
SPEKPY = {
    "60KV_AL35": (37.5, 2.51, 31.10),
    "90KV_AL40": (48.7, 3.99, 37.80),
    "120KV_AL43": (57.5, 5.49, 43.90),
}


@pytest.mark.parametrize("name", SPEKPY)
def test_mean_half_value_layer_and_effective_energy_are_spekpys(name):
    spectrum = load_spectrum(name)
    found = mean_energy_kev(spectrum), hvl_mm_al(spectrum), effective_energy_kev(spectrum)
    assert found == pytest.approx(SPEKPY[name], rel=0.01)
    assert mean_energy_kev(spectrum) == pytest.approx(SPEKPY[name][0], rel=0.004)
    assert effective_energy_kev(spectrum) == pytest.approx(SPEKPY[name][2], rel=0.004)


@pytest.mark.parametrize(
    ("name", "kvp", "millimetres"), [("60KV_AL35", 60, 3.5), ("90KV_AL40", 90, 4.0), ("120KV_AL43", 120, 4.3)]
)
def test_tables_hold_bins_up_to_the_tube_voltage(name, kvp, millimetres):
    spectrum = load_spectrum(name)
    assert spectrum_names()[name] == (kvp, millimetres)
    assert spectrum.energy_kev[-1] == kvp - 0.25  # the centre of the last half keV
    assert spectrum.energy_kev[0] < 15
    assert spectrum.fluence.sum() == pytest.approx(1, abs=2e-6)
    for given in (spectrum_of(float(kvp), millimetres), spectrum_of(float(kvp))):
        assert given.name == name


def test_characteristic_lines_of_tungsten_stand_above_90_kvp_and_not_below_its_k_edge():
    """K-alpha-1 at 59.32 keV, K edge at 69.5 keV: 60 kVp cannot excite it."""
    high, low = load_spectrum("90KV_AL40"), load_spectrum("60KV_AL35")
    line = {s.name: s.fluence[np.searchsorted(s.energy_kev, 59.25)] for s in (high, low)}
    beside = {s.name: s.fluence[np.searchsorted(s.energy_kev, 56.25)] for s in (high, low)}
    assert line["90KV_AL40"] > 2 * beside["90KV_AL40"]
    assert line["60KV_AL35"] < beside["60KV_AL35"]


def test_one_line_of_60_kev_has_its_own_half_value_layer():
    """ln 2 / (0.2778 cm2/g * 2.699 g/cm3), NIST's aluminium at 60 keV."""
    line = Spectrum("line", np.array([60.0]), np.array([1.0]))
    assert hvl_mm_al(line) == pytest.approx(10 * np.log(2) / (0.2778 * 2.699), rel=1e-3)
    assert effective_energy_kev(line) == pytest.approx(60, abs=0.01)
    assert mean_energy_kev(line) == 60


def test_half_value_layer_of_two_lines_weighs_them_by_air_kerma():
    """Equal photons of 30 and 60 keV; NIST mu_en/rho of air 0.1537 and 0.03041, mu/rho of aluminium 1.128 and 0.2778."""
    kerma = np.array([30 * 0.1537, 60 * 0.03041])
    lines = Spectrum("lines", np.array([30.0, 60.0]), np.array([0.5, 0.5]))
    left = np.exp(-np.array([1.128, 0.2778]) * 2.699 * hvl_mm_al(lines) / 10)
    assert kerma @ left / kerma.sum() == pytest.approx(0.5, rel=3e-3)


@pytest.mark.parametrize(
    ("energy_kev", "nist"), [(20.0, 0.5389), (30.0, 0.1537), (60.0, 0.03041), (100.0, 0.02325), (150.0, 0.02496)]
)
def test_energy_transfer_in_air_is_nists(energy_kev, nist):
    assert spectra._energy_transfer_air(np.array([energy_kev]))[0] == pytest.approx(nist, rel=0.015)


def test_recoil_share_is_the_klein_nishina_integral():
    energy = 80.0
    photon = lambda c: 1 / (1 + energy / 510.99895 * (1 - c))  # noqa: E731  scattered over first energy
    section = lambda c: photon(c) ** 2 * (photon(c) + 1 / photon(c) - 1 + c * c)  # noqa: E731
    recoil = quad(lambda c: section(c) * (1 - photon(c)), -1, 1)[0] / quad(section, -1, 1)[0]
    energy = np.array([energy])
    photoelectric = spectra.mass_attenuation("air", energy, "photoelectric")
    compton = spectra.mass_attenuation("air", energy, "compton")
    assert spectra._energy_transfer_air(energy)[0] == pytest.approx((photoelectric + recoil * compton)[0], rel=1e-9)


def test_tables_cannot_be_changed_by_their_users():
    with pytest.raises(ValueError, match="read-only"):
        load_spectrum("90KV_AL40").fluence[0] = 1.0


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: lines[:-20],
        lambda lines: lines[:40] + lines[41:],
        lambda lines: lines[:60] + [lines[61], lines[60]] + lines[62:],
        lambda lines: [*lines[:60], lines[60].replace("e-", "e-1"), *lines[61:]],
        lambda lines: [*lines[:60], lines[60].split("\t")[0], *lines[61:]],
        lambda lines: [*lines[:60], lines[60].split("\t")[0] + "\tnan", *lines[61:]],
        lambda lines: [line.replace("energy_kev\tfluence", "fluence\tenergy_kev") for line in lines],
        lambda lines: [*lines[:-2], "89.25\t1.5", f"89.75\t{-0.5 - sum(float(row.split()[1]) for row in lines[5:-2])}"],
        lambda lines: lines[:5],
        lambda lines: [],
    ],
    ids=[
        "truncated",
        "row lost",
        "rows swapped",
        "digit",
        "column lost",
        "nan",
        "header",
        "negative share",
        "header only",
        "empty",
    ],
)
def test_damaged_tables_are_refused(tmp_path, monkeypatch, damage):
    lines = (spectra.TABLES / "90KV_AL40.tsv").read_text().splitlines()
    (tmp_path / "90KV_AL40.tsv").write_text("\n".join(damage(lines)) + "\n")
    monkeypatch.setattr(spectra, "TABLES", tmp_path)
    with pytest.raises(UserError, match="90KV_AL40.tsv is damaged; expected .* sum to 1. Restore it"):
        load_spectrum("90KV_AL40")


def test_unknown_names_are_refused_with_the_known_ones():
    known = "60KV_AL35, 90KV_AL40, 120KV_AL43"
    with pytest.raises(UserError, match=f"'90kv_al4' is not known; expected one of: {known}. Did you mean 90KV_AL40"):
        load_spectrum("90kv_al4")
    with pytest.raises(UserError, match="'' is not known"):
        load_spectrum("")


@pytest.mark.parametrize(
    "wrong", [(19.0, 3.0), (151.0, 3.0), (-90.0, 4.0), (float("nan"), 4.0), (90.0, -1.0), (90.0, float("nan"))]
)
def test_tubes_that_do_not_exist_are_refused(wrong):
    with pytest.raises(UserError, match="kvp .* filter_mm_al .*; expected 20 to 150 kVp and 0 to 50 mm"):
        spectrum_of(*wrong)


def test_other_tubes_need_spekpy_and_the_error_names_the_nearest_table(monkeypatch):
    monkeypatch.setitem(sys.modules, "spekpy", None)
    with pytest.raises(
        UserError, match=r"kvp 81 with .* 3 has no table; .*nearest, 90KV_AL40, or `pip install 'xr2ct\[spectra\]'`"
    ):
        spectrum_of(81.0, 3.0)
    with pytest.raises(UserError, match="kvp 90 with filter_mm_al 3 has no table"):
        spectrum_of(90.0, 3.0)
    with pytest.raises(UserError, match="kvp 81 without filter_mm_al; .* nearest named spectrum is 90KV_AL40"):
        spectrum_of(81.0)


def test_spekpy_is_asked_for_other_tubes(monkeypatch):
    """A stand-in with spekpy's interface: what is asked of it, and what becomes of its answer."""
    asked = []

    class Spek:
        def __init__(self, **tube):
            asked.append(tube)

        def filter(self, material, millimetres):
            asked.append((material, millimetres))
            return self

        def get_spectrum(self):
            return np.array([1.25, 1.75, 2.25, 2.75]), np.array([0.0, 1e-9, 3.0, 1.0])

    monkeypatch.setitem(sys.modules, "spekpy", types.SimpleNamespace(Spek=Spek))
    spectrum = spectrum_of(90.0, 2.5)
    assert asked == [{"kvp": 90.0, "th": 12.0, "dk": 0.5, "mu_data_source": "nist"}, ("Al", 2.5)]
    assert spectrum.name == "90KV_AL25"
    np.testing.assert_array_equal(spectrum.energy_kev, [2.25, 2.75])
    np.testing.assert_allclose(spectrum.fluence, [0.75, 0.25])


def test_spekpy_gives_the_tables():
    """The real thing, where it is installed."""
    pytest.importorskip("spekpy")
    table, computed = load_spectrum("60KV_AL35"), spectra.compute_spectrum(60.0, 3.5)
    np.testing.assert_array_equal(computed.energy_kev, table.energy_kev)
    np.testing.assert_allclose(computed.fluence, table.fluence, rtol=1e-4)
