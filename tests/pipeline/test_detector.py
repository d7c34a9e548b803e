"""The detector against closed forms, published attenuation and compound-Poisson statistics."""

import bisect
import math
import tracemalloc

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from pipeline.errors import UserError
from pipeline.physics import detector
from pipeline.physics.attenuation import TABLES, mass_attenuation
from pipeline.physics.detector import (
    CHUNK_PX,
    GRIDS,
    LEAST_INTENSITY,
    LEAST_PHOTONS,
    add_noise,
    apply_grid,
    blur,
    detected_energy,
    detector_tables,
    expose,
    read_out,
)
from pipeline.physics.materials import MATERIALS, decompose, get_decomposition
from pipeline.physics.spectra import Spectrum, load_spectrum

LINES = Spectrum("lines", np.array([60.0, 120.0]), np.array([0.75, 0.25]))
# cm2/g at 60 and 120 keV: NIST XCOM for dry air, ICRU four-component soft tissue and ICRP cortical bone.
NIST = {"air": (0.1875, 0.1455), "soft_tissue": (0.2025, 0.1596), "bone": (0.3102, 0.1666)}
# NIST X-Ray Mass Attenuation Coefficients, water: keV -> cm2/g.
WATER_KEV = [8, 10, 15, 20, 30, 40, 50, 60, 80, 100, 150]
WATER = [10.37, 5.329, 1.673, 0.8096, 0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505]
QUIET = {"photons": 0.0, "scatter": None, "grid": "none", "psf_px": 0.0}


def generator(seed=0):
    return np.random.default_rng(seed)


def slab(material, g_per_cm2):
    """Areal densities of one material: a stack (material, v, u) with one row."""
    areal = np.zeros((3, 1, len(g_per_cm2)))
    areal[MATERIALS.index(material), 0] = g_per_cm2
    return areal


def water(spectrum, cm):
    """Signal behind water, which is none of MATERIALS: the two inner functions with its own table."""
    attenuation, weights = detector_tables(spectrum, ["water"])
    return detector._detected_energy_numpy(np.array([cm], np.float32), attenuation, weights)[0]


@pytest.mark.parametrize("material", NIST)
def test_slabs_and_step_wedges_of_two_lines_by_hand(material):
    """Energy arriving: 0.75 * 60 keV and 0.25 * 120 keV, so 0.6 and 0.4 of the open field; squared energies 3/7 and 4/7."""
    steps = np.array([0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0])
    signal, second_moment = detected_energy(slab(material, steps), LINES)
    first, second = np.exp(-np.outer(NIST[material], steps))
    np.testing.assert_allclose(signal[0], 0.6 * first + 0.4 * second, rtol=1e-3)
    np.testing.assert_allclose(second_moment[0], 3 / 7 * first + 4 / 7 * second, rtol=1e-3)


def test_water_slabs_of_two_lines_by_hand():
    """30 and 60 keV in equal numbers carry 1/3 and 2/3 of the energy; NIST 0.3756 and 0.2059 cm2/g."""
    lines = Spectrum("lines", np.array([30.0, 60.0]), np.array([0.5, 0.5]))
    cm = np.array([1.0, 2.0, 5.0, 10.0])
    by_hand = np.exp(-0.3756 * cm) / 3 + 2 * np.exp(-0.2059 * cm) / 3
    np.testing.assert_allclose(water(lines, cm), by_hand, rtol=2e-3)


@pytest.mark.parametrize("name", ["60KV_AL35", "90KV_AL40", "120KV_AL43"])
def test_whole_spectra_by_another_summation(name):
    """Bin by bin in plain Python, rounded once: 40 g/cm2 of tissue and 8 of bone included."""
    spectrum = load_spectrum(name)
    areal = np.array([[0.0, 0.01, 0.03, 0.1], [0.0, 2.0, 40.0, 10.0], [0.0, 8.0, 0.0, 3.0]])[:, :, None]
    signal, second_moment = detected_energy(areal, spectrum)
    mu = [mass_attenuation(material, spectrum.energy_kev).tolist() for material in MATERIALS]
    bins = list(zip(spectrum.energy_kev.tolist(), spectrum.fluence.tolist(), *mu, strict=True))
    for pixel, (air, tissue, bone) in enumerate(areal[:, :, 0].T.tolist()):
        for power, found in ((1, signal), (2, second_moment)):
            left = math.fsum(e**power * f * math.exp(-air * a - tissue * t - bone * b) for e, f, a, t, b in bins)
            opened = math.fsum(e**power * f for e, f, *_ in bins)
            assert found[pixel, 0] == pytest.approx(left / opened, rel=1e-5)


def test_deepdrrs_formula_by_hand_on_a_toy():
    """I = sum E pdf(E) exp(-sum of areal density * mu/rho), from HU to intensity: densities typed in, tables read here."""
    spectrum = load_spectrum("90KV_AL40")
    hu = np.array([[[-900, 40, 700], [-1000, -1000, 200]]], np.int16)  # (z, y, x), 80 mm steps along x
    density = decompose(hu, get_decomposition("deepdrr-v1"))
    areal = density.sum(axis=3) * 8.0  # (material, z, y): 1.03 - 0.9261; 1.03 + 0.023544; 1.03 + 0.41202; ...
    by_hand = [
        {"air": 8 * 0.1039, "soft_tissue": 8 * 1.053544, "bone": 8 * 1.44202},
        {"air": 8 * 0.002, "soft_tissue": 8 * 1.14772, "bone": 0.0},
    ]

    def mu_over_rho(material, kev):
        rows = [
            tuple(map(float, line.split("\t"))) for line in (TABLES / f"{material}.tsv").read_text().splitlines()[3:]
        ]
        after = bisect.bisect([row[0] for row in rows], kev)
        (e0, *low), (e1, *high) = rows[after - 1], rows[after]
        along = math.log(kev / e0) / math.log(e1 / e0)
        return sum(a * (b / a) ** along for a, b in zip(low, high, strict=True))

    signal, _ = detected_energy(areal, spectrum)
    found = expose(areal, spectrum, **QUIET, rng=generator())
    lines = list(zip(spectrum.energy_kev.tolist(), spectrum.fluence.tolist(), strict=True))
    mu = [{material: mu_over_rho(material, kev) for material in MATERIALS} for kev, _ in lines]
    for pixel, ray in enumerate(by_hand):
        left = (e * p * math.exp(-sum(ray[m] * at[m] for m in ray)) for (e, p), at in zip(lines, mu, strict=True))
        expected = math.fsum(left) / math.fsum(e * p for e, p in lines)
        assert signal[0, pixel] == pytest.approx(expected, rel=1e-5)
        assert found[0, pixel] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["60KV_AL35", "90KV_AL40", "120KV_AL43"])
def test_water_hardens_the_beam_by_the_right_amount(name):
    """Mean attenuation falls with depth; its size from NIST's eleven values of water, splined in log-log."""
    spectrum = load_spectrum(name)
    cm = np.array([1.0, 5.0, 20.0])
    found = -np.log(water(spectrum, cm)) / cm
    mu = np.exp(CubicSpline(np.log(WATER_KEV), np.log(WATER))(np.log(spectrum.energy_kev)))
    energy = spectrum.energy_kev * spectrum.fluence
    expected = [-np.log((energy * np.exp(-mu * depth)).sum() / energy.sum()) / depth for depth in cm]
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    assert found[0] > 1.06 * found[2]
    np.testing.assert_allclose(found[0] / found[2], expected[0] / expected[2], rtol=2e-3)
    first, second = (np.asarray(detected_energy(slab("soft_tissue", cm), spectrum))[:, 0, i] for i in (0, 2))
    assert second[1] / second[0] > first[1] / first[0] > 1  # what is left behind 20 cm is harder


def test_open_field_is_one():
    for spectrum in (LINES, load_spectrum("120KV_AL43")):
        for found in (
            *detected_energy(np.zeros((3, 2, 3)), spectrum),
            expose(np.zeros((3, 2, 3)), spectrum, **QUIET, rng=generator()),
        ):
            np.testing.assert_allclose(found, 1.0, atol=1e-6)  # single precision


def test_pixels_stay_where_they_are_in_any_chunk():
    """More pixels than a chunk, not a multiple of it, no square; float32 and float64 areal densities."""
    shape = (3, 7, CHUNK_PX // 5)
    areal = generator(1).uniform(0, 5, shape)
    signal, second_moment = detected_energy(areal, LINES)
    assert signal.shape == second_moment.shape == shape[1:]
    mu = np.array([NIST[material] for material in MATERIALS])
    left = np.exp(-np.einsum("mvu,mb->bvu", areal, mu))
    np.testing.assert_allclose(signal, 0.6 * left[0] + 0.4 * left[1], rtol=5e-3)
    np.testing.assert_allclose(detected_energy(areal.astype(np.float32), LINES)[0], signal, rtol=1e-6)
    turned = detected_energy(areal[:, ::-1].transpose(0, 2, 1), LINES)[0]
    np.testing.assert_allclose(turned, signal[::-1].T, rtol=1e-6)


def test_memory_does_not_hold_pixels_times_bins():
    """256 x 256 pixels at 154 bins would be 40 MB in float32; two float64 images are 1 MB."""
    areal = np.ones((3, 256, 256), np.float32)
    spectrum = load_spectrum("90KV_AL40")
    detected_energy(areal[:, :2], spectrum)
    tracemalloc.start()
    detected_energy(areal, spectrum)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6


HARD = Spectrum("hard", np.array([30.0, 60.0, 120.0]), np.array([0.5, 0.2, 0.3]))
PIXELS = (500, 400)


def within(found, expected, error, sigmas=4.5):
    assert abs(found - expected) < sigmas * error, f"{found} against {expected} +- {error}"


@pytest.mark.parametrize("photons", [20.0, 3000.0])
def test_noise_has_the_mean_and_variance_of_photons_counted_bin_by_bin(photons):
    """Theory: sum n E and sum n E^2. Simulation: a Poisson number in every bin, each times its energy."""
    areal = np.broadcast_to(np.array([0.0, 3.0, 1.0])[:, None, None], (3, *PIXELS))
    mu = np.stack([mass_attenuation(material, HARD.energy_kev) for material in MATERIALS])
    mean_number = photons * HARD.fluence * np.exp(-np.array([0.0, 3.0, 1.0]) @ mu)
    opened = photons * (HARD.fluence @ HARD.energy_kev)
    mean, variance = mean_number @ HARD.energy_kev / opened, mean_number @ HARD.energy_kev**2 / opened**2
    numbers = generator(7).poisson(mean_number[:, None, None], (3, *PIXELS))
    counted = np.tensordot(HARD.energy_kev, numbers, 1) / opened
    signal, second_moment = detected_energy(areal, HARD)
    noisy = add_noise(signal, second_moment, photons, HARD, generator(8))
    for sample in (counted, noisy):
        n = sample.size
        fourth = np.mean((sample - sample.mean()) ** 4)
        within(sample.mean(), mean, math.sqrt(variance / n))
        within(sample.var(), variance, math.sqrt((fourth - variance**2) / n))
    assert np.abs(np.corrcoef(noisy[:, :-1].ravel(), noisy[:, 1:].ravel())[0, 1]) < 0.02


def test_noise_of_the_open_field_is_that_of_its_spectrum():
    """Relative variance sum f E^2 / (photons (sum f E)^2): 30, 60, 120 keV at 0.5, 0.2, 0.3 -> 5490 / 63^2 / photons."""
    ones = np.ones(PIXELS)
    sample = add_noise(ones, ones, 500.0, HARD, generator(3))
    expected = 5490 / 63**2 / 500
    within(sample.var(), expected, expected * math.sqrt(2.2 / ones.size))
    within(sample.mean(), 1, math.sqrt(expected / ones.size))


def test_no_photons_is_no_noise_and_draws_nothing():
    signal = np.array([[0.0, 0.5, 1.0]])
    rng = generator(5)
    np.testing.assert_array_equal(add_noise(signal, signal, 0.0, HARD, rng), signal)
    assert rng.random() == generator(5).random()


def test_opaque_and_starved_pixels_stay_finite():
    """An ideal absorber reads 0; the reading ends at half a photon, or at 1e-30 where there is no noise."""
    areal = slab("bone", np.array([0.0, 50.0, 3e3, 1e6, 1e30]))
    signal, second_moment = detected_energy(areal, LINES)
    assert signal[0, -1] == second_moment[0, -1] == 0
    for photons, floor in (
        (1e5, LEAST_PHOTONS / 1e5),
        (0.1, 1.0),
        (1e12, LEAST_PHOTONS / 1e12),
        (0.0, LEAST_INTENSITY),
    ):
        found = expose(areal, LINES, **{**QUIET, "photons": photons}, rng=generator())
        assert np.isfinite(-np.log(found)).all()
        np.testing.assert_allclose(found[0, -1], floor, rtol=1e-6)
    assert -math.log(LEAST_PHOTONS / 1e5) == pytest.approx(12.2, abs=0.01)


def test_the_same_seed_gives_the_same_picture():
    areal = slab("soft_tissue", np.linspace(0, 20, 50))
    pictures = [expose(areal, LINES, **{**QUIET, "photons": 1e3}, rng=generator(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()
    assert pictures[0].dtype == np.float32


def kernel(sigma):
    """The weights by hand: a sampled Gaussian, four standard deviations to each side, sum 1."""
    reach = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return weights / weights.sum()


@pytest.mark.parametrize("sigma", [0.5, 1.3])
def test_blur_is_a_gaussian_that_keeps_all_energy(sigma):
    point = np.zeros((21, 31))
    point[9, 17] = 2.0
    reach = len(kernel(sigma)) // 2
    expected = np.zeros_like(point)
    expected[9 - reach : 10 + reach, 17 - reach : 18 + reach] = 2 * np.outer(kernel(sigma), kernel(sigma))
    np.testing.assert_allclose(blur(point, sigma), expected, atol=1e-12)
    edge = np.zeros((21, 31))
    edge[0, 0] = 2.0  # its light beyond the edge comes back to it, and only to its neighbourhood
    assert blur(edge, sigma)[0, 0] == pytest.approx(2 * kernel(sigma)[reach : reach + 2].sum() ** 2, rel=1e-12)
    assert blur(edge, sigma)[-1, -1] == 0
    corner = generator().uniform(size=(5, 4))
    assert blur(corner, sigma).sum() == pytest.approx(corner.sum(), rel=1e-12)
    np.testing.assert_allclose(blur(np.full((3, 9), 0.7), sigma), 0.7, rtol=1e-12)
    assert blur(corner, 0.0) is corner


def test_blur_smooths_the_noise_as_scintillator_light_does():
    """Variance times sum of squared weights (0.41 for half a pixel), correlation of neighbours as the kernel has it."""
    weights = kernel(0.5)
    one_way = weights @ weights
    assert one_way**2 == pytest.approx(0.41, abs=0.005)
    ones = np.ones(PIXELS)
    exposure = {"photons": 2e4, "scatter": None, "grid": "none", "rng": generator(4)}
    sharp = read_out(ones, ones, HARD, psf_px=0.0, **exposure)
    soft = read_out(ones, ones, HARD, psf_px=0.5, **exposure)
    variance = 5490 / 63**2 / 2e4
    within(sharp.var(dtype=float), variance, variance * math.sqrt(2 / ones.size))
    within(soft.var(dtype=float), variance * one_way**2, variance * one_way**2 * math.sqrt(3 / ones.size))
    neighbours = np.corrcoef(soft[:, :-1].ravel(), soft[:, 1:].ravel())[0, 1]
    within(neighbours, weights[:-1] @ weights[1:] / one_way, 1.2 / math.sqrt(ones.size))


def test_a_grid_lowers_scatter_as_measured():
    """Ratio 10, 30 cm of acrylic: scatter-to-primary 4.51 without it, 1.28 with it (Altunbas et al. 2016), read at 5 %."""
    primary, scatter = apply_grid(np.array([[0.01]]), np.array([[0.0451]]), "r10")
    assert scatter / primary == pytest.approx(1.28, rel=0.05)
    assert primary == 0.01  # the open field is behind the same grid


def test_grids_of_higher_ratio_take_more_of_both():
    assert GRIDS["none"].primary == GRIDS["none"].scatter == 1
    r8, r10, r12 = (GRIDS[name] for name in ("r8", "r10", "r12"))
    assert 0.75 >= r8.primary > r10.primary > r12.primary >= 0.5
    for grid, ratio in ((r8, 8), (r10, 10), (r12, 12)):
        assert grid.scatter == pytest.approx(r10.scatter * 10 / ratio, abs=0.005)
        assert grid.primary == pytest.approx(0.85 * (r10.primary / 0.85) ** (ratio / 10), abs=0.005)


def test_scatter_is_added_behind_the_grid():
    areal = slab("soft_tissue", np.array([0.0, 10.0]))
    primary = detected_energy(areal, LINES)[0]
    scatter = np.array([[0.02, 0.3]])
    bare = expose(areal, LINES, **{**QUIET, "scatter": scatter}, rng=generator())
    np.testing.assert_allclose(bare, primary + scatter, rtol=1e-6)
    behind = expose(areal, LINES, **{**QUIET, "scatter": scatter, "grid": "r12"}, rng=generator())
    np.testing.assert_allclose(behind, primary + scatter * 0.175 / 0.68, rtol=1e-6)


def test_a_grid_and_scatter_change_the_noise():
    """Quanta behind r8: 0.73 of the photons. Scatter 0.4 * 0.26 / 0.73 counts with the energies of the open field."""
    part, second, scatter = np.full(PIXELS, 0.5), np.full(PIXELS, 0.6), np.full(PIXELS, 0.4)
    found = read_out(part, second, HARD, photons=4e3, scatter=scatter, grid="r8", psf_px=0.0, rng=generator(6))
    behind = 0.4 * 0.26 / 0.73
    variance = (0.6 + behind) * 5490 / 63**2 / (4e3 * 0.73)
    within(found.mean(dtype=float), 0.5 + behind, math.sqrt(variance / part.size))
    within(found.var(dtype=float), variance, variance * math.sqrt(2.1 / part.size))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"photons": -1.0}, r"photons -1; expected 0 \(no noise\) to 1e\+12 per pixel .* Correct photons"),
        ({"photons": float("nan")}, "photons nan; expected 0"),
        ({"photons": float("inf")}, "photons inf; expected 0"),
        ({"photons": 1e19}, r"photons 1e\+19; expected 0"),
        (
            {"psf_px": -0.5},
            r"psf_px -0.5; expected a standard deviation of 0 \(no blur\) to 100 pixels. Correct psf_px",
        ),
        ({"psf_px": float("nan")}, "psf_px nan; expected"),
        ({"grid": "R12"}, "grid 'R12' is not known; expected one of: none, r8, r10, r12. Did you mean 'r12'"),
        ({"grid": ""}, "grid '' is not known; .* Correct grid"),
    ],
)
def test_exposures_that_cannot_be_are_refused(setting, message):
    with pytest.raises(UserError, match=message):
        expose(np.zeros((3, 1, 1)), LINES, **{**QUIET, **setting}, rng=generator())
