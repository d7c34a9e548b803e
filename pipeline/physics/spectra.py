"""Tube spectra: three named tables made once by spekpy, any other on demand where spekpy is installed."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from pipeline.errors import UserError
from pipeline.physics.attenuation import mass_attenuation

TABLES = Path(__file__).parents[2] / "resources" / "spectra"
COLUMNS = "energy_kev\tfluence"
ANODE_ANGLE_DEG = 12.0
BIN_KEV = 0.5
NEGLIGIBLE = 1e-7
"""Leading bins that hold less than this part of all photons together are dropped: filters leave nothing below 10 keV."""

_ALUMINIUM_G_PER_CM3 = 2.699
_ELECTRON_REST_KEV = 510.99895


@dataclass(frozen=True)
class Spectrum:
    """Photons that reach the detector without an object: share of each bin, `fluence`, at its centre `energy_kev`."""

    name: str
    energy_kev: Float[ndarray, "bin"]
    fluence: Float[ndarray, "bin"]


def spectrum_names() -> dict[str, tuple[float, float]]:
    """Name -> (kVp, mm of aluminium) of every table: 90KV_AL40 is 90 kVp behind 4.0 mm."""
    parts = {path.stem: path.stem.split("KV_AL") for path in TABLES.glob("*.tsv")}
    return dict(sorted(((name, (float(kvp), float(al) / 10)) for name, (kvp, al) in parts.items()), key=lambda s: s[1]))


def load_spectrum(name: str) -> Spectrum:
    """A spectrum of resources/spectra by name, for example 90KV_AL40."""
    known = spectrum_names()
    if name not in known:
        nearest = get_close_matches(name.upper(), known, n=1, cutoff=0.0)
        raise UserError(
            f"spectrum {name!r} is not known; expected one of: {', '.join(known)}. "
            f"Did you mean {', '.join(nearest)}? Or give kvp and filter_mm_al instead."
        )
    return _read(TABLES / f"{name}.tsv")


def spectrum_of(kvp: float, filter_mm_al: float | None = None) -> Spectrum:
    """The spectrum of a tube voltage and a total filter in mm of aluminium: the named table if there is one, else spekpy.

    Without a filter it is the named table of that voltage.
    """
    known = spectrum_names()
    if not (20 <= kvp <= 150 and (filter_mm_al is None or 0 <= filter_mm_al <= 50)):
        raise UserError(
            f"kvp {kvp} and filter_mm_al {filter_mm_al}; expected 20 to 150 kVp and 0 to 50 mm of aluminium. "
            "Correct them, or give a named spectrum."
        )
    for name, (named_kvp, named_mm) in known.items():
        if kvp == named_kvp and filter_mm_al in (None, named_mm):
            return load_spectrum(name)
    listed = ", ".join(f"{name} ({kv:g} kVp, {mm:g} mm)" for name, (kv, mm) in known.items())
    nearest = min(known, key=lambda name: (abs(known[name][0] - kvp), abs(known[name][1] - (filter_mm_al or 0))))
    if filter_mm_al is None:
        raise UserError(
            f"kvp {kvp:g} without filter_mm_al; expected a filter, or the voltage of a named spectrum: {listed}. "
            f"Add filter_mm_al; the nearest named spectrum is {nearest}."
        )
    try:
        return compute_spectrum(kvp, filter_mm_al)
    except ImportError:
        raise UserError(
            f"kvp {kvp:g} with filter_mm_al {filter_mm_al:g} has no table; expected one of: {listed}. "
            f"Use the nearest, {nearest}, or `pip install 'xr2ct[spectra]'`, which computes any other."
        ) from None


def compute_spectrum(kvp: float, filter_mm_al: float) -> Spectrum:
    """A tungsten tube by spekpy (its default model, "casim"); ImportError where spekpy is not installed.

    Its filter attenuates by NIST coefficients, as everything here does: by spekpy's default, PENELOPE's, aluminium is
    1 % more transparent at 30 keV and the half-value layer of the same photons 1.3 % thicker.
    """
    from spekpy import Spek

    tube = Spek(kvp=kvp, th=ANODE_ANGLE_DEG, dk=BIN_KEV, mu_data_source="nist").filter("Al", filter_mm_al)
    energy_kev, fluence = (np.array(column, dtype=float) for column in tube.get_spectrum())
    kept = np.cumsum(fluence) > NEGLIGIBLE * fluence.sum()
    name = f"{kvp:g}KV_AL{10 * filter_mm_al:g}"
    return Spectrum(name, energy_kev[kept], fluence[kept] / fluence[kept].sum())


@cache
def _read(path: Path) -> Spectrum:
    """A table as make.py wrote it; one that is cut short or changed by hand is refused, never renormalised."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    try:
        header, *rows = lines
        energy_kev, fluence = np.array([[float(value) for value in row.split("\t")] for row in rows]).T
        sound = header == COLUMNS and np.allclose(np.diff(energy_kev), BIN_KEV, rtol=0, atol=1e-6)
        sound = sound and (fluence >= 0).all() and abs(fluence.sum() - 1) < 2e-6
    except ValueError:
        sound = False
    if not sound:
        raise UserError(
            f"spectrum table {path.name} is damaged; expected the columns {COLUMNS.replace(chr(9), ', ')}, bins of "
            f"{BIN_KEV:g} keV and fluences that sum to 1. Restore it, or run resources/spectra/make.py."
        )
    energy_kev.flags.writeable = fluence.flags.writeable = False
    return Spectrum(path.stem, energy_kev, fluence)


def mean_energy_kev(spectrum: Spectrum) -> float:
    """Mean photon energy, each photon counted once."""
    return float(spectrum.energy_kev @ spectrum.fluence / spectrum.fluence.sum())


def hvl_mm_al(spectrum: Spectrum) -> float:
    """First half-value layer: mm of aluminium that halve the air kerma of the narrow beam."""
    from scipy.optimize import brentq  # a tenth of a second that most jobs need not spend

    kerma = spectrum.fluence * spectrum.energy_kev * _energy_transfer_air(spectrum.energy_kev)
    mu_per_mm = mass_attenuation("aluminium", spectrum.energy_kev) * _ALUMINIUM_G_PER_CM3 / 10
    return float(brentq(lambda mm: kerma @ np.exp(-mu_per_mm * mm) / kerma.sum() - 0.5, 0.0, 100.0))


def effective_energy_kev(spectrum: Spectrum) -> float:
    """Photon energy whose half-value layer in aluminium is that of the spectrum."""
    from scipy.optimize import brentq

    mu_cm2_per_g = np.log(2) / (hvl_mm_al(spectrum) / 10 * _ALUMINIUM_G_PER_CM3)
    excess = lambda kev: mass_attenuation("aluminium", np.array([kev]))[0] - mu_cm2_per_g  # noqa: E731
    return float(brentq(excess, 2.0, 150.0))  # the curve falls all the way above aluminium's K edge at 1.56 keV


def _energy_transfer_air(energy_kev: Float[ndarray, "bin"]) -> Float[ndarray, "bin"]:
    """Mass energy-transfer coefficient of air, cm2/g: photoelectric whole, Compton by its recoil electron.

    Below 150 keV the fluorescence and bremsstrahlung of air carry off less than 0.2 %: this is also mu_en.
    The mean share of the recoil electron is the Klein-Nishina formula's, integrated over all angles.
    """
    a = energy_kev / _ELECTRON_REST_KEV
    b, log = 1 + 2 * a, np.log1p(2 * a)
    number = (1 + a) / a**2 * (2 * (1 + a) / b - log / a) + log / (2 * a) - (1 + 3 * a) / b**2
    kept = (log / a**3 + 2 * (1 + a) * (2 * a**2 - 2 * a - 1) / (a * b) ** 2 + 8 * a**2 / (3 * b**3)) / 2
    compton = mass_attenuation("air", energy_kev, "compton") * (1 - kept / number)
    return mass_attenuation("air", energy_kev, "photoelectric") + compton
