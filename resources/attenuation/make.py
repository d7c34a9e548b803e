"""Write the attenuation tables of this folder: python resources/attenuation/make.py (needs xraylib 4.x; nothing else does).

<material>.tsv     mass attenuation coefficients in cm2/g of photoelectric absorption, Rayleigh and Compton scattering. The
                   grid is dense enough that log-log interpolation stays within 0.1 % of xraylib; every absorption edge is
                   in it twice, just below and just above.
form_factors.tsv   scattering of free atoms, mixed by mass fraction w (the independent-atom model: no interference between
                   the molecules of a liquid) over x = sin(theta / 2) / wavelength in 1/angstrom:
                     F2 = sum w F(x)^2 / A in electron^2 mol/g      S = sum w S(x) / A in electron mol/g
                   so that, with N_A in 1/mol and cross sections in cm2/g per steradian,
                     Rayleigh = N_A * Thomson * F2                  Compton = N_A * Klein-Nishina * S
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xraylib

COMPOUNDS = {
    "air": "Air, Dry (near sea level)",
    "soft_tissue": "Tissue, Soft (ICRU four-component)",
    "bone": "Bone, Cortical (ICRP)",
    "water": "Water, Liquid",
}
ALUMINIUM = {"Elements": [13], "massFractions": [1.0], "density": 2.699}
ENERGY_KEV = np.geomspace(1.0, 150.0, 140)
X_PER_ANGSTROM = np.concatenate([[0.0], np.geomspace(5e-3, 12.5, 240)])
EDGE_SHELLS = (xraylib.K_SHELL, xraylib.L1_SHELL, xraylib.L2_SHELL, xraylib.L3_SHELL)
RECIPE = f"# made by resources/attenuation/make.py with xraylib {xraylib.__version__}"


def composition(material: str) -> dict:
    return ALUMINIUM if material == "aluminium" else xraylib.GetCompoundDataNISTByName(COMPOUNDS[material])


def mixed(material: str, of_element) -> float:
    """Sum of a property per gram over the elements of a material, by mass fraction."""
    parts = composition(material)
    return sum(w * of_element(z) for z, w in zip(parts["Elements"], parts["massFractions"], strict=True))


def edges_kev(z: int) -> list[float]:
    """Where photoelectric absorption of an element jumps: near the shell's energy, but not always exactly at it."""
    jumps = []
    for shell in EDGE_SHELLS:
        try:
            edge = xraylib.EdgeEnergy(z, shell)
        except ValueError:
            continue
        low, high = 0.99 * edge, 1.01 * edge
        if not ENERGY_KEV[0] < low < high < ENERGY_KEV[-1]:
            continue
        while high - low > 1e-6:
            middle = (low + high) / 2
            up = xraylib.CS_Photo(z, high) / xraylib.CS_Photo(z, middle)
            low, high = (middle, high) if up > xraylib.CS_Photo(z, middle) / xraylib.CS_Photo(z, low) else (low, middle)
        if xraylib.CS_Photo(z, high) > xraylib.CS_Photo(z, low):
            jumps += [low, high]
    return jumps


def energy_grid(material: str) -> np.ndarray:
    edges = [edge for z in composition(material)["Elements"] for edge in edges_kev(z)]
    return np.unique(np.concatenate([ENERGY_KEV, edges]))


def attenuation_rows(material: str) -> list[str]:
    processes = (xraylib.CS_Photo, xraylib.CS_Rayl, xraylib.CS_Compt)
    return [
        "\t".join(
            [f"{energy:.7f}", *(f"{mixed(material, lambda z, p=p: p(z, float(energy))):.6e}" for p in processes)]  # noqa: B023
        )
        for energy in energy_grid(material)
    ]


def form_factor_rows(materials: list[str]) -> list[str]:
    def coherent(z: int, x: float) -> float:
        return xraylib.FF_Rayl(z, x) ** 2 / xraylib.AtomicWeight(z)

    def incoherent(z: int, x: float) -> float:
        return xraylib.SF_Compt(z, x) / xraylib.AtomicWeight(z) if x > 0 else 0.0

    rows = []
    for x in X_PER_ANGSTROM:
        values = [mixed(m, lambda z, p=p: p(z, float(x))) for m in materials for p in (coherent, incoherent)]  # noqa: B023
        rows.append("\t".join([f"{x:.6e}", *(f"{value:.6e}" for value in values)]))
    return rows


def main() -> None:
    folder = Path(__file__).parent
    materials = [*COMPOUNDS, "aluminium"]
    for material in materials:
        parts = composition(material)
        name = COMPOUNDS.get(material, "aluminium")
        weights = " ".join(
            f"{xraylib.AtomicNumberToSymbol(z)}:{w:.6f}"
            for z, w in zip(parts["Elements"], parts["massFractions"], strict=True)
        )
        header = [
            RECIPE,
            f"# {name}, nominal density {parts['density']:g} g/cm3, mass fractions {weights}",
            "energy_kev\tphotoelectric_cm2_per_g\trayleigh_cm2_per_g\tcompton_cm2_per_g",
        ]
        (folder / f"{material}.tsv").write_text("\n".join(header + attenuation_rows(material)) + "\n")
    columns = [f"{m}_{quantity}" for m in materials for quantity in ("F2", "S")]
    header = [
        RECIPE,
        "# x = sin(theta/2)/wavelength; F2 in electron^2 mol/g, S in electron mol/g; independent atoms",
        "\t".join(["x_per_angstrom", *columns]),
    ]
    (folder / "form_factors.tsv").write_text("\n".join(header + form_factor_rows(materials)) + "\n")


if __name__ == "__main__":
    main()
