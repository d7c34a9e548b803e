"""DeepDRR itself needs a GPU. Here: what it is told about our views, by closed form and a stand-in, and its errors."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.geometry import make_view
from pipeline.projectors import deepdrr
from pipeline.projectors.deepdrr import camera_of, project_deepdrr

ISO = np.array([10.0, -20.0, 300.0])
AFFINE = np.array([[2.0, 0, 0, -5], [0, 3, 0, -30], [0, 0, 4, 290], [0, 0, 0, 1]])
CT = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
TILTED = {"name": "tilted", "alpha_deg": 25.0, "beta_deg": -12.0}


def cone(view, **changes):
    values = {"detector_px": (30, 40), "pixel_mm": 2.0, "sdd_mm": 1000.0, "sod_mm": 800.0}
    return make_view(view, ISO, beam="cone", **values | changes)


def test_the_camera_of_a_pa_view_by_hand():
    intrinsic, to_camera, mirrored = camera_of(cone("PA"))
    # f = 1000 mm / 2 mm; the centre of 40 x 30 pixels is (20, 15) where pixel centres lie at halves
    np.testing.assert_allclose(intrinsic, [[500, 0, 20], [0, 500, 15], [0, 0, 1]])
    # the tube stands 800 mm behind the patient's back; camera x = patient's right (+x), y = feet (-z), z = front (+y)
    np.testing.assert_allclose(to_camera @ [10, -820, 300, 1], [0, 0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(to_camera[:3, :3], [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-12)
    assert mirrored


@pytest.mark.parametrize("view", ["PA", "LAT", "AP", TILTED])
@pytest.mark.parametrize("roll_deg", [0.0, 35.0])
def test_the_camera_is_right_handed_and_sees_every_point_where_our_view_sees_it(view, roll_deg):
    view = cone(view, roll_deg=roll_deg, offset_mm=(14.0, -6.0))
    intrinsic, to_camera, mirrored = camera_of(view)
    assert np.linalg.det(to_camera[:3, :3]) == pytest.approx(1)
    point = np.append(ISO + [13, -27, 31], 1.0)
    u, v, w = view.projection() @ point
    x, y, depth = intrinsic @ (to_camera @ point)[:3]
    assert depth > 0
    column = 40 - x / depth if mirrored else x / depth
    np.testing.assert_allclose((column, y / depth), (u / w + 0.5, v / w + 0.5))


def stand_in(monkeypatch):
    """Modules named like DeepDRR's, whose projector writes down what it was given and returns a ramp along columns."""
    seen = SimpleNamespace()

    class Volume:
        @classmethod
        def from_nifti(cls, path, **options):
            import nibabel

            image = nibabel.load(path)
            seen.hu, seen.affine, seen.volume_options = np.asarray(image.dataobj), image.affine, options
            return cls()

    class Projector:
        spectrum_arr = np.array([[20e3, 1.0], [50e3, 3.0]])  # eV, photons: 42.5 keV on average

        def __init__(self, volume, **options):
            seen.options = options

        def __enter__(self):
            return self

        def __exit__(self, *_):
            seen.closed = True

        def __call__(self, camera):
            noise = np.random.random() if seen.options["add_noise"] else 0.0
            height, width = camera.intrinsic.sensor_height, camera.intrinsic.sensor_width
            return 42.5 * (np.tile(np.arange(width), (height, 1)) + noise)

    geo = SimpleNamespace(
        CameraIntrinsicTransform=lambda data, **size: SimpleNamespace(data=data, **size),
        FrameTransform=lambda data: data,
        CameraProjection=lambda intrinsic, extrinsic: SimpleNamespace(intrinsic=intrinsic, extrinsic=extrinsic),
    )
    modules = {"deepdrr": {"Volume": Volume, "geo": geo}, "deepdrr.projector": {"Projector": Projector}}
    for name, contents in modules.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(deepdrr, "has_gpu", lambda: True)
    return seen


def test_deepdrr_gets_our_ct_and_gives_our_images(monkeypatch):
    seen = stand_in(monkeypatch)
    image = project_deepdrr(CT, AFFINE, [cone("PA"), cone("LAT")], spectrum="90KV_AL40")
    assert seen.hu.shape == (6, 5, 4) and seen.hu[5, 0, 0] == 5 and seen.hu[0, 0, 3] == 3 * 5 * 6
    np.testing.assert_array_equal(seen.affine, AFFINE)
    assert seen.volume_options["use_thresholding"] is True
    assert seen.options["neglog"] is False and seen.options["add_noise"] is False
    assert seen.options["source_to_detector_distance"] >= 1000 and seen.closed
    # relative to the open field of 42.5 keV, and its left-to-right is our right-to-left
    assert image.shape == (2, 30, 40) and image.dtype == np.float32
    np.testing.assert_allclose(image[:, 7], np.tile(np.arange(40)[::-1], (2, 1)), rtol=1e-6)


def test_noise_depends_on_the_seed_alone_and_leaves_the_global_generator_be(monkeypatch):
    stand_in(monkeypatch)
    arguments = (CT, AFFINE, [cone("PA")])
    np.random.seed(7)
    expected = np.random.RandomState(7).random()
    first = project_deepdrr(*arguments, spectrum="60KV_AL35", photons=1000, seed=3)
    assert np.random.random() == expected
    np.testing.assert_array_equal(first, project_deepdrr(*arguments, spectrum="60KV_AL35", photons=1000, seed=3))
    assert (first != project_deepdrr(*arguments, spectrum="60KV_AL35", photons=1000, seed=4)).any()


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(deepdrr, "has_gpu", lambda: True)
    monkeypatch.setitem(sys.modules, "deepdrr", None)
    with pytest.raises(UserError, match=r"deepdrr cannot be imported.*envs/deepdrr\.yaml with conda.*deepdrr-v1"):
        project_deepdrr(CT, AFFINE, [cone("PA")], spectrum="90KV_AL40")


def test_a_machine_without_a_gpu_is_told_so(monkeypatch):
    stand_in(monkeypatch)
    monkeypatch.setattr(deepdrr, "has_gpu", lambda: False)
    with pytest.raises(UserError, match="no NVIDIA GPU with a driver; expected one with CUDA 12.*conda"):
        project_deepdrr(CT, AFFINE, [cone("PA")], spectrum="90KV_AL40")


def test_unknown_spectra_and_parallel_beams_are_refused():
    with pytest.raises(UserError, match="spectrum '80KV'.*60KV_AL35, 90KV_AL40, 120KV_AL43"):
        project_deepdrr(CT, AFFINE, [cone("PA")], spectrum="80KV")
    parallel = make_view("PA", ISO, beam="parallel", detector_px=(30, 40), pixel_mm=2.0)
    with pytest.raises(UserError, match="PA: DeepDRR draws cone beams only"):
        project_deepdrr(CT, AFFINE, [parallel], spectrum="90KV_AL40")
