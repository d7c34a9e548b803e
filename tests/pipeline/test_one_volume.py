"""A lone CT: read on its own grid, on a detector computed by hand."""

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.one_volume import case_name, fit_detector, load_ct
from pipeline.sweeps import draw_angles
from tests.cohorts import write_nifti
from tests.phantoms import labelled_phantom

AFFINE = np.array([[2.0, 0, 0, -31], [0, 3.0, 0, 12], [0, 0, 5.0, 440], [0, 0, 0, 1]])
SHAPE = (4, 6, 8)
"""18 x 21 x 25 mm (x, y, z), counted to one voxel beyond the outermost centres, where the interpolated volume ends."""

PARALLEL = {
    "beam": "parallel",
    "backend": "joseph",
    "views": ("PA", "LAT"),
    "sdd_mm": 0.0,
    "sod_mm": 0.0,
    "energy_kev": 60.0,
}
CONE = PARALLEL | {"beam": "cone", "sdd_mm": 1000.0, "sod_mm": 700.0}


def fitted(values, **changes):
    simulator = fit_detector({**values, **changes}, SHAPE, AFFINE, case="a", seed=1)
    return simulator.detector_px, simulator.pixel_mm


@pytest.mark.parametrize(
    ("values", "change", "detector_px", "pixel_mm"),
    [
        (PARALLEL, {}, (256, 256), 0.10),  # 25 mm high / 255 = 0.098, up to a hundredth
        (PARALLEL, {"detector_px": (10, 10)}, (10, 10), 2.78),
        (PARALLEL, {"detector_px": (10, 4)}, (10, 4), 7.0),  # LAT: 21 mm wide / 3
        (PARALLEL, {"detector_px": (10, 4), "views": ("PA",)}, (10, 4), 6.0),
        (PARALLEL, {"detector_px": (10, 10), "roll_deg": 90.0, "offset_mm": (0.0, 3.0)}, (10, 10), 3.0),
        (CONE, {"detector_px": (10, 10)}, (10, 10), 4.03),  # 12.5 mm * 1000 / (700 - 10.5) = 18.13 to each side
        (CONE, {"pixel_mm": 3.0}, (14, 12), 3.0),  # 2 * 18.13 / 3 = 12.1; LAT: 2 * 10.5 / 0.691 / 3 = 10.1
        (CONE, {"pixel_mm": 3.0, "detector_px": (7, 5)}, (7, 5), 3.0),
    ],
)
def test_the_detector_holds_the_shadow_of_the_whole_volume(values, change, detector_px, pixel_mm):
    """Rolled by 90 degrees and 3 mm off, v spans 21 / 2 + 3 mm to one side and u 25 / 2: 27 / 9."""
    assert fitted(values, **change) == (detector_px, pytest.approx(pixel_mm))


def test_a_random_view_is_fitted_at_its_drawn_angle():
    """Seen at an angle, 18 x 21 mm are 18 cos + 21 sin mm wide; the angle itself stays to be drawn."""
    values = {**PARALLEL, "views": ({"name": "any", "alpha_deg": {"uniform": [0.0, 90.0]}},), "detector_px": (50, 4)}
    for case, seed in (("a", 1), ("b", 1), ("a", 2)):
        simulator = fit_detector(values, SHAPE, AFFINE, case=case, seed=seed)
        angle = np.deg2rad(draw_angles(simulator, case=case, seed=seed).views[0]["alpha_deg"])
        width = 18 * np.cos(angle) + 21 * np.sin(angle)
        assert width / 3 <= simulator.pixel_mm < width / 3 + 0.011
        assert simulator.views == values["views"]


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(
        UserError, match="pixel_mm 0.001 needs a detector of .* expected at most 8192. Increase pixel_mm"
    ):
        fitted(PARALLEL, pixel_mm=0.001)
    with pytest.raises(UserError, match="view PA: the tube stands inside or in front of the volume. Increase sod_mm"):
        fitted(CONE, sod_mm=5.0)
    with pytest.raises(UserError, match="is the list"):
        fitted(CONE, views=({"name": "a", "alpha_deg": [1, 2]},))


def test_a_file_keeps_its_grid_and_every_voxel_its_place(tmp_path):
    """The file runs from right to left; its voxels are turned, not interpolated."""
    ct, _ = labelled_phantom((22, 26, 30))
    ct = ct + np.arange(30, dtype=np.int16)
    affine = np.array([[-2.5, 0, 0, 35], [0, 3.0, 0, -40], [0, 0, 4.0, 10], [0, 0, 0, 1.0]])
    write_nifti(tmp_path / "a.nii.gz", ct, affine)
    ct_hu, turned = load_ct(tmp_path / "a.nii.gz")
    assert ct_hu.dtype == np.int16 and ct_hu.shape == (22, 26, 30)
    np.testing.assert_array_equal(ct_hu, ct[:, :, ::-1])
    np.testing.assert_allclose(turned @ [29, 0, 0, 1], affine @ [0, 0, 0, 1], atol=1e-5)
    np.testing.assert_allclose(turned @ [4, 5, 6, 1], affine @ [25, 5, 6, 1], atol=1e-5)


def test_hu_beyond_what_simulators_know_are_cut_and_fractions_rounded(tmp_path):
    ct, _ = labelled_phantom((22, 26, 30))
    values = ct.astype(np.float32) + 0.25
    values[0, 0, 0], values[0, 0, 1], values[0, 0, 2] = 9000.0, -3000.0, 40.75
    write_nifti(tmp_path / "a.nii.gz", values, np.diag([3.0, 3, 3, 1]))
    write_nifti(tmp_path / "b.nii.gz", np.rint(values).astype(np.int16), np.diag([3.0, 3, 3, 1]))
    ct_hu, _ = load_ct(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(load_ct(tmp_path / "b.nii.gz")[0], ct_hu)
    assert ct_hu[0, 0, :3].tolist() == [3071, -1024, 41] and ct_hu[0, 0, 3] == ct[0, 0, 3]


def test_the_same_ct_is_the_same_case_wherever_it_lies():
    ct_hu, affine = np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([1.0, 2.0, 3.0, 1.0])
    moved, other = affine + np.eye(4)[3], ct_hu + np.int16(1)
    assert case_name(ct_hu, affine) == case_name(np.asfortranarray(ct_hu), affine)
    assert len({case_name(ct_hu, affine), case_name(ct_hu, moved), case_name(other, affine)}) == 3
