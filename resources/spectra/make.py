"""Write the spectra of this folder and print their checks: python resources/spectra/make.py

Needs this package installed and `pip install spekpy==2.5.4`; nothing else of the project does. A few seconds.
"""

from __future__ import annotations

from importlib.metadata import version

from spekpy import Spek

from pipeline.physics import spectra

CHECKS = {
    "mean keV": spectra.mean_energy_kev,
    "HVL mm Al": spectra.hvl_mm_al,
    "effective keV": spectra.effective_energy_kev,
}
TUBES = {"60KV_AL35": (60, 3.5), "90KV_AL40": (90, 4.0), "120KV_AL43": (120, 4.3)}


def main() -> None:
    for name, (kvp, filter_mm_al) in TUBES.items():
        spectrum = spectra.compute_spectrum(kvp, filter_mm_al)
        tube = Spek(kvp=kvp, th=spectra.ANODE_ANGLE_DEG, dk=spectra.BIN_KEV, mu_data_source="nist")
        tube.filter("Al", filter_mm_al)
        theirs = mean, hvl, effective = tube.get_emean(), tube.get_hvl1(), tube.get_eeff()
        header = [
            f"# made by resources/spectra/make.py with spekpy {version('spekpy')}, model casim, NIST attenuation",
            f"# tungsten anode at {spectra.ANODE_ANGLE_DEG:g} degrees, {kvp} kVp, {filter_mm_al} mm Al, "
            f"bins of {spectra.BIN_KEV:g} keV given by their centres",
            f"# spekpy's own: mean {mean:.3f} keV, first HVL {hvl:.4f} mm Al, effective energy in Al {effective:.3f} keV",
            f"# fluence sums to 1; leading bins with less than {spectra.NEGLIGIBLE:g} of the photons are left out",
            spectra.COLUMNS,
        ]
        rows = zip(spectrum.energy_kev, spectrum.fluence, strict=True)
        lines = header + [f"{energy:.2f}\t{fluence:.6e}" for energy, fluence in rows]
        (spectra.TABLES / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        written = spectra.load_spectrum(name)
        ours = [check(written) for check in CHECKS.values()]
        for what, our, their in zip(CHECKS, ours, theirs, strict=True):
            print(f"{name:10}  {what:13}  spekpy {their:8.4f}  tables {our:8.4f}  {100 * (our / their - 1):+.2f} %")


if __name__ == "__main__":
    main()
