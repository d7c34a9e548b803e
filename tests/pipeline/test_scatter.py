"""Scatter on the detector: the kernel model against closed forms and against our Monte Carlo."""

import time

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.geometry import make_view
from pipeline.physics.attenuation import mass_attenuation
from pipeline.physics.materials import DECOMPOSITIONS, MATERIALS, decompose
from pipeline.physics.scatter import (
    KINDS,
    block_mean,
    centre_to_detector_mm,
    coarse_density,
    gaussian_matrix,
    kernel_parameters,
    kernel_scatter,
    montecarlo_scatter,
    scatter_signal,
)
from pipeline.physics.spectra import Spectrum, load_spectrum

CURVES = DECOMPOSITIONS["smooth-v1"]
SPECTRA = ("60KV_AL35", "90KV_AL40", "120KV_AL43")


def view_of(name="PA", *, pixels=(48, 48), pixel_mm=9.0, gap_mm=250.0):
    """A cone beam whose isocentre, the origin, stands `gap_mm` before the detector."""
    return make_view(
        name,
        np.zeros(3),
        beam="cone",
        detector_px=pixels,
        pixel_mm=pixel_mm,
        sdd_mm=1800.0,
        sod_mm=1800.0 - gap_mm,
    )


def centred_affine(shape_zyx, voxel_mm) -> np.ndarray:
    affine = np.diag([*voxel_mm, 1.0])
    affine[:3, 3] = -(np.array(shape_zyx[::-1]) - 1) / 2 * voxel_mm
    return affine


def chest() -> tuple[np.ndarray, np.ndarray]:
    """Elliptic trunk of 33 x 22 cm with two lungs, heart and spine, in voxels of 8 x 6 x 10 mm."""
    shape, voxel = (40, 40, 44), (8.0, 6.0, 10.0)
    affine = centred_affine(shape, voxel)
    z, y, x = (grid * mm - (n - 1) / 2 * mm for grid, mm, n in zip(np.indices(shape), voxel[::-1], shape, strict=True))
    hu = np.where((x / 165) ** 2 + (y / 110) ** 2 <= 1, 40, -1000)
    for side in (-75, 75):
        hu[((x - side) / 60) ** 2 + (y / 85) ** 2 + ((z - 30) / 130) ** 2 <= 1] = -800
    hu[(np.abs(x) < 18) & (np.abs(y + 75) < 20)] = 500
    hu[((x - 20) / 45) ** 2 + ((y - 30) / 45) ** 2 + (z / 60) ** 2 <= 1] = 40
    return hu.astype(np.int16), affine


def abdomen() -> tuple[np.ndarray, np.ndarray]:
    """Elliptic trunk of 38 x 26 cm that ends with the volume, as a CT does, with lung bases, spine and pelvis."""
    shape, voxel = (30, 40, 44), (9.0, 8.0, 10.0)
    affine = centred_affine(shape, voxel)
    z, y, x = (grid * mm - (n - 1) / 2 * mm for grid, mm, n in zip(np.indices(shape), voxel[::-1], shape, strict=True))
    hu = np.where((x / 190) ** 2 + (y / 130) ** 2 <= 1, 40, -1000)
    for side in (-90, 90):
        hu[((x - side) / 70) ** 2 + (y / 90) ** 2 + ((z - 150) / 90) ** 2 <= 1] = -800
        hu[((x - side) / 50) ** 2 + ((y + 50) / 30) ** 2 + ((z + 130) / 60) ** 2 <= 1] = 600
    hu[(np.abs(x) < 20) & (np.abs(y + 90) < 22)] = 500
    return hu.astype(np.int16), affine


def primary_image(ct_hu, affine, view, spectrum) -> tuple[np.ndarray, np.ndarray]:
    """Areal densities in g/cm2 by sums over nearest voxels every 2 mm, and the energy-weighted primary signal."""
    density = decompose(ct_hu, CURVES)
    pixel, along = view.rays()
    to_voxel = np.linalg.inv(affine)
    areal = np.zeros((len(MATERIALS), *view.shape))
    size = np.array(ct_hu.shape)
    for along_mm in np.arange(-750.0, 1.0, 2.0):
        index = np.rint((pixel + along * along_mm) @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int)[..., ::-1]
        inside = ((index >= 0) & (index < size)).all(axis=-1)
        z, y, x = np.clip(index, 0, size - 1).transpose(2, 0, 1)
        areal += density[:, z, y, x] * inside * 0.2
    mu = np.stack([mass_attenuation(material, spectrum.energy_kev) for material in MATERIALS])
    weight = spectrum.energy_kev * spectrum.fluence
    return areal, np.exp(-np.einsum("mvu,me->vue", areal, mu)) @ weight / weight.sum()


def scattered(kind, ct_hu, affine, view, spectrum, photons=0, seed=0):
    images = primary_image(ct_hu, affine, view, spectrum)
    return scatter_signal(kind, ct_hu, affine, view, spectrum, CURVES, *images, photons, np.random.default_rng(seed))


@pytest.mark.parametrize("shape", [(6, 7, 5), (130, 65, 64), (1, 64, 129)])
def test_coarse_density_keeps_mass_and_its_centre(shape):
    hu = np.random.default_rng(0).integers(-1000, 1500, shape).astype(np.int16)
    affine = centred_affine(shape, [2.0, 3, 5])
    affine[:3, :3] = affine[:3, :3][:, [1, 0, 2]]
    fine = decompose(hu, CURVES).astype(float)
    coarse, coarse_affine = coarse_density(hu, affine, CURVES)
    assert max(coarse.shape[1:]) <= 64

    def mass_and_centre(density, to_world):
        mass = density.sum(axis=(1, 2, 3)) * abs(np.linalg.det(to_world[:3, :3]))
        index = [(density * grid).sum(axis=(1, 2, 3)) for grid in np.indices(density.shape[1:])][::-1]
        centre = np.stack(index) / density.sum(axis=(1, 2, 3))
        return mass, to_world[:3, :3] @ centre + to_world[:3, 3:]

    for got, expected in zip(mass_and_centre(coarse, coarse_affine), mass_and_centre(fine, affine), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=0.15)


def test_gaussian_matrix_by_the_error_function():
    """A bin from -1 to 1 sigma about a pixel's centre: 0.6827; from 1 to 2 sigma: 0.1359."""
    matrix = gaussian_matrix(2.0, np.array([0.5, 4.5, 6.5]), 5)
    np.testing.assert_allclose(matrix[2], [0.6827, 0.1359], atol=1e-4)


def test_block_mean_by_hand():
    image = np.array([[1.0, 2, 9], [3, 4, 11], [5, 6, 13]])
    np.testing.assert_array_equal(block_mean(image, np.array([0, 2, 3]), np.array([0, 2, 3])), [[2.5, 10], [5.5, 13]])


@pytest.mark.parametrize("finer", [1, 6])
def test_centre_of_mass_stands_before_the_detector(finer):
    """In the fine grid only every third voxel along each axis is looked at."""
    hu = np.full((20, 18, 16), -1024, np.int16)
    hu[4:6, 12:16, 3:5] = 0
    y_mm, x_mm = (centred_affine(hu.shape, [4.0, 5, 6]) @ [3.5, 13.5, 4.5, 1])[[1, 0]]
    hu = hu.repeat(finer, 0).repeat(finer, 1).repeat(finer, 2)
    affine = centred_affine(hu.shape, np.array([4.0, 5, 6]) / finer)
    # Beams of PA run along +y, of LAT along -x.
    assert centre_to_detector_mm(hu, affine, view_of("PA"), CURVES) == pytest.approx(250 - y_mm, abs=1e-6)
    assert centre_to_detector_mm(hu, affine, view_of("LAT"), CURVES) == pytest.approx(250 + x_mm, abs=1e-6)


def test_a_point_spreads_into_the_two_gaussians():
    """One pixel of scatter potential 0.5 * 0.2^1 * 3 (10 g/cm2 are 1): its energy is kept, its variance is the mixture's."""
    view = view_of(pixels=(64, 64), pixel_mm=4.0)
    mass, primary = np.zeros((64, 64)), np.full((64, 64), 0.2)
    mass[31, 20] = 30.0
    image = kernel_scatter(mass, primary, view, 50.0, np.array([0.5, 1.0, 0, 0, 0.1, 0.4, 0.25]))
    assert image.sum() == pytest.approx(0.5 * 0.2 * 3, rel=1e-3)
    v, u = np.indices(image.shape)
    assert (v * image).sum() / image.sum() == pytest.approx(31, abs=0.01)
    assert (u * image).sum() / image.sum() == pytest.approx(20, abs=0.01)
    # Widths of 0.1 and 0.4 times 50 mm in pixels of 4 mm, and a pixel's own variance of 1/12.
    variance = 0.75 * (5 / 4) ** 2 + 0.25 * (20 / 4) ** 2 + 1 / 12
    assert ((v - 31) ** 2 * image).sum() / image.sum() == pytest.approx(variance, rel=0.01)


def test_a_thick_neighbour_weakens_a_ray_and_what_lands_in_its_shadow():
    """A thin ray at the edge of a half-plane of primary 0.01, its own column open: half the neighbourhood is ln 0.01."""
    view = view_of(pixels=(64, 64), pixel_mm=20.0)
    mass, primary = np.zeros((64, 64)), np.ones((64, 64))
    mass[32, 32], primary[:, 33:] = 10.0, 0.01
    image = kernel_scatter(mass, primary, view, 100.0, np.array([1.0, 1.0, 0.4, 0.0, 1.0, 1.0, 0.5]))
    # The edge lies half a pixel, 0.1 sigma, beside the ray's centre: 0.46 of the Gaussian lies beyond it.
    assert image.sum() == pytest.approx(0.01 ** (0.4 * 0.46), rel=0.01)
    image = kernel_scatter(mass, primary, view, 100.0, np.array([1.0, 1.0, 0.0, 0.2, 1.0, 1.0, 0.5]))
    assert image[32, 37] / image[32, 27] == pytest.approx(0.01**0.2, rel=1e-3)


@pytest.mark.parametrize("pixels", [(48, 40), (192, 160)])
def test_kernel_is_in_millimetres_not_pixels(pixels):
    """The same detector in coarse and fine pixels sees the same scatter."""
    spectrum, (hu, affine) = load_spectrum("90KV_AL40"), chest()
    coarse = scattered("kernel", hu, affine, view_of(pixels=(24, 20), pixel_mm=16.0), spectrum)
    fine = scattered("kernel", hu, affine, view_of(pixels=pixels, pixel_mm=16.0 * 24 / pixels[0]), spectrum)
    step = pixels[0] // 24
    means = fine.reshape(24, step, 20, step).mean(axis=(1, 3))
    np.testing.assert_allclose(means, coarse, rtol=0.05, atol=0.02 * coarse.mean())


def test_kernel_scatters_less_through_a_gap_and_more_in_a_wide_field():
    spectrum = load_spectrum("90KV_AL40")
    parameters = kernel_parameters(spectrum)
    wide, narrow = view_of(pixels=(64, 64), pixel_mm=5.0), view_of(pixels=(64, 64), pixel_mm=2.0)
    mass, primary = np.full((64, 64), 20.0), np.full((64, 64), 0.02)
    near, far = (kernel_scatter(mass, primary, wide, gap, parameters)[32, 32] for gap in (110.0, 400.0))
    small = kernel_scatter(mass, primary, narrow, 110.0, parameters)[32, 32]
    assert far < 0.6 * near
    assert small < near
    # 20 cm without an air gap: published ratios are 2.5 to 4 (test_transport); the kernel is too low in a filled field.
    assert 1.8 < near / 0.02 < 4.5


def test_open_beam_has_no_scatter():
    air = np.full((8, 8, 8), -1024, np.int16)
    view, affine = view_of(), centred_affine((8, 8, 8), [40.0] * 3)
    for kind in KINDS:
        image = scattered(kind, air, affine, view, load_spectrum("90KV_AL40"), photons=1000)
        np.testing.assert_array_equal(image, 0)


@pytest.mark.parametrize("view_name", ["PA", "LAT"])
@pytest.mark.parametrize("kind", KINDS)
def test_scatter_lies_on_the_side_of_its_object(kind, view_name):
    shape = (20, 22, 24)
    hu = np.full(shape, -1000, np.int16)
    hu[14:19, 4:9, 16:21] = 40
    affine = centred_affine(shape, [10.0, 12, 14])
    view = view_of(view_name, pixels=(48, 56), gap_mm=150.0)
    image = scattered(kind, hu, affine, view, load_spectrum("90KV_AL40"), photons=100_000)
    assert image.shape == view.shape
    u, v, w = view.projection() @ affine @ [18.0, 6.0, 16.0, 1]
    aside = np.array([v, u]) / w - (np.array(view.shape) - 1) / 2
    centre = (np.indices(view.shape) * image).sum(axis=(1, 2)) / image.sum() - (np.array(view.shape) - 1) / 2
    assert (np.abs(aside) > 3).all()
    assert ((centre / aside > 0.15) & (centre / aside < 1.1)).all()


@pytest.mark.parametrize("spectrum_name", SPECTRA)
def test_kernel_is_near_monte_carlo_in_a_chest(spectrum_name):
    """Image means within 25 %, nine pixels in ten within a factor 1.8: a lung is not the tissue the kernel was fitted on."""
    (hu, affine), view, spectrum = chest(), view_of(), load_spectrum(spectrum_name)
    kernel = scattered("kernel", hu, affine, view, spectrum)
    montecarlo = scattered("montecarlo", hu, affine, view, spectrum, photons=150_000)
    assert kernel.mean() == pytest.approx(montecarlo.mean(), rel=0.25)
    low, high = np.percentile(kernel / montecarlo, [5, 95])
    assert 1 / 1.8 < low < high < 1.8


@pytest.mark.parametrize("view_name", ["PA", "LAT"])
@pytest.mark.parametrize(("sod_mm", "sdd_mm"), [(700.0, 1000.0), (1500.0, 1800.0)])
def test_kernel_is_near_monte_carlo_in_a_thick_body_that_the_volume_cuts(view_name, sod_mm, sdd_mm):
    """The whole shadow in the field, open beam around it: rays at the edge must not fill the body's shadow with scatter.

    Deep behind 38 cm (LAT) the kernel is too high: its median may be up to 2 times that of Monte Carlo.
    """
    (hu, affine), spectrum = abdomen(), load_spectrum("90KV_AL40")
    view = make_view(
        view_name,
        np.zeros(3),
        beam="cone",
        detector_px=(48, 48),
        pixel_mm=500 / 48 * sdd_mm / sod_mm,
        sdd_mm=sdd_mm,
        sod_mm=sod_mm,
    )
    _, primary = primary_image(hu, affine, view, spectrum)
    kernel = scattered("kernel", hu, affine, view, spectrum)
    montecarlo = scattered("montecarlo", hu, affine, view, spectrum, photons=100_000)
    assert kernel.mean() == pytest.approx(montecarlo.mean(), rel=0.25)
    behind = primary < 0.05
    assert behind.mean() > 0.1
    assert 0.7 < np.median(kernel[behind] / montecarlo[behind]) < 2.0


def test_kernel_is_near_monte_carlo_behind_a_thick_slab_in_open_beam():
    """30 cm of water, half a metre before the detector: Monte Carlo says 1.6 times the primary signal at the centre."""
    hu = np.full((50, 40, 50), -1000, np.int16)
    hu[5:-5, 5:-5, 5:-5] = 0
    affine = centred_affine(hu.shape, [8.0, 10, 8])
    view = make_view("PA", np.zeros(3), beam="cone", detector_px=(48, 48), pixel_mm=11.0, sdd_mm=1500.0, sod_mm=1000.0)
    spectrum = load_spectrum("90KV_AL40")
    kernel = scattered("kernel", hu, affine, view, spectrum)[20:28, 20:28].mean()
    montecarlo = scattered("montecarlo", hu, affine, view, spectrum, photons=200_000)[20:28, 20:28].mean()
    assert 0.6 < kernel / montecarlo < 1.6


def test_smoothing_keeps_a_flat_image_flat():
    """A wide slab scatters alike towards both edges, and the smoothing does not bend the image down at them."""
    density, affine = np.zeros((3, 2, 2, 2)), centred_affine((2, 2, 2), [900.0, 20, 900])
    density[1] = 1.0
    image = montecarlo_scatter(
        density, affine, view_of(gap_mm=60.0), load_spectrum("90KV_AL40"), 300_000, np.random.default_rng(0)
    )
    assert image[0].mean() == pytest.approx(image[-1].mean(), rel=0.1)
    assert 0.4 < image[0, 0] / image[24, 24] < 1.0


def test_parameters_interpolate_in_mean_energy():
    low, middle, high = (kernel_parameters(load_spectrum(name)) for name in SPECTRA)
    means = [np.average(s.energy_kev, weights=s.fluence) for s in map(load_spectrum, SPECTRA)]
    between = Spectrum("between", np.array([(means[0] + means[1]) / 2]), np.array([1.0]))
    np.testing.assert_allclose(kernel_parameters(between), (low + middle) / 2, rtol=1e-3)
    hard = Spectrum("hard", np.array([140.0]), np.array([1.0]))
    np.testing.assert_allclose(kernel_parameters(hard), high)


def test_same_seed_same_scatter():
    (hu, affine), view, spectrum = chest(), view_of(), load_spectrum("60KV_AL35")
    one, again, other = (scattered("montecarlo", hu, affine, view, spectrum, 5000, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_kernel_takes_milliseconds():
    """Promised: 30 ms of CPU for 256 x 256; asked with room for a busy machine and run-time type checks."""
    hu, affine = chest()
    view, spectrum = view_of(pixels=(256, 256), pixel_mm=1.7), load_spectrum("90KV_AL40")
    areal, primary = np.full((3, 256, 256), 5.0), np.full((256, 256), 0.1)
    arguments = ("kernel", hu, affine, view, spectrum, CURVES, areal, primary, 0, np.random.default_rng(0))
    scatter_signal(*arguments)
    start = time.process_time()
    scatter_signal(*arguments)
    assert time.process_time() - start < 1  # a tenth of that on a calm core


def test_bad_input_is_refused():
    (hu, affine), view, spectrum = chest(), view_of(), load_spectrum("60KV_AL35")
    areal, primary = np.ones((3, 48, 48)), np.full((48, 48), 0.1)

    def ask(kind="kernel", photons=100, primary=primary):
        return scatter_signal(
            kind, hu, affine, view, spectrum, CURVES, areal, primary, photons, np.random.default_rng(0)
        )

    with pytest.raises(
        UserError, match="scatter 'monte carlo' is not known; expected one of: none, kernel, montecarlo"
    ):
        ask("monte carlo")
    with pytest.raises(UserError, match="scatter_photons 0; expected at least 1"):
        ask("montecarlo", photons=0)
    with pytest.raises(UserError, match="the primary image is not finite"):
        ask(primary=np.full((48, 48), np.nan))
