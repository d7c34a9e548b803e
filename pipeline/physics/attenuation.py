"""How photons of 1 to 150 keV interact with the body: mass attenuation and atomic form factors, from tabulated xraylib.

The tables are files of resources/attenuation, made once by its make.py; nothing here needs xraylib.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from pipeline.errors import UserError

TABLES = Path(__file__).parents[2] / "resources" / "attenuation"
MATERIALS = ("air", "soft_tissue", "bone", "water", "aluminium")
PROCESSES = ("photoelectric", "rayleigh", "compton")
HC_KEV_ANGSTROM = 12.398420
"""Planck constant times speed of light (CODATA 2018): wavelength of a photon in angstrom = HC / energy in keV."""


def mass_attenuation(material: str, energy_kev: Float[ndarray, "*n"], process: str = "total") -> Float[ndarray, "*n"]:
    """Mass attenuation coefficient in cm2/g of one of MATERIALS, by one of PROCESSES or "total", their sum.

    Log-log interpolation of Hubbell's and Kissel's cross sections as xraylib 4 has them, within 0.1 % of it.
    """
    if process not in (*PROCESSES, "total"):
        raise UserError(f"process {process!r} is not known; expected one of: {', '.join(PROCESSES)}, total.")
    table = _attenuation(material)
    energy = np.asarray(energy_kev, dtype=float)
    lowest, highest = np.exp(table[0, [0, -1]])
    # Tables hold six decimals: their ends come back from the logarithm with rounding.
    if not ((energy > lowest - 1e-6) & (energy < highest + 1e-6)).all():
        wrong = energy[~((energy > lowest - 1e-6) & (energy < highest + 1e-6))].flat[0]
        raise UserError(
            f"energy_kev {wrong:g} for the attenuation of {material}; expected {lowest:g} to {highest:g} keV. "
            "Correct energy_kev, the spectrum or the kVp."
        )
    rows = range(1, 4) if process == "total" else [1 + PROCESSES.index(process)]
    return sum(np.exp(np.interp(np.log(energy), table[0], table[row])) for row in rows)


def form_factor_squared(material: str, momentum_transfer: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
    """Coherent form factor, sum of w F^2 / A in electron^2 mol/g: times N_A and Thomson's, the Rayleigh cross section.

    `momentum_transfer` x = sin(theta/2) / wavelength in 1/angstrom, clipped to 12.5 (150 keV, backwards, needs 12.1).
    Independent atoms: the interference of a liquid's molecules, seen below 5 degrees, is not in it.
    """
    x, columns = _form_factors()
    return np.interp(momentum_transfer, x, columns[_known(material), 0])


def incoherent_scattering(material: str, momentum_transfer: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
    """Incoherent scattering function, sum of w S / A in electron mol/g: times N_A and Klein-Nishina's, the Compton one.

    Zero forwards, Z/A (all electrons as if free) at large x; `momentum_transfer` as in form_factor_squared.
    """
    x, columns = _form_factors()
    return np.interp(momentum_transfer, x, columns[_known(material), 1])


def _known(material: str) -> int:
    if material not in MATERIALS:
        raise UserError(f"material {material!r} is not known; expected one of: {', '.join(MATERIALS)}.")
    return MATERIALS.index(material)


@cache
def _attenuation(material: str) -> Float[ndarray, "4 energy"]:
    """Logarithms of the energy and of the three processes' coefficients."""
    _known(material)
    return np.log(np.loadtxt(TABLES / f"{material}.tsv", skiprows=3).T)


@cache
def _form_factors() -> tuple[Float[ndarray, "x"], Float[ndarray, "material 2 x"]]:
    """x in 1/angstrom and F2, S of every material, in the order of MATERIALS."""
    path = TABLES / "form_factors.tsv"
    names = path.read_text().splitlines()[2].split("\t")
    table = np.loadtxt(path, skiprows=3).T
    columns = [[table[names.index(f"{material}_{quantity}")] for quantity in ("F2", "S")] for material in MATERIALS]
    return table[0], np.array(columns)
