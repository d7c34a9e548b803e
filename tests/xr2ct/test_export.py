"""The exported layout, read as X2CT's own loader reads it."""

import h5py
import numpy as np
import pytest

from tests.phantoms import phantom_case, write_phantom_shard, xrays_of
from xr2ct.errors import UserError
from xr2ct.export import export_x2ct, x2ct_image, x2ct_volume


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    case = phantom_case("p1", shift=(0.04, 0.0, 0.03))
    shard = write_phantom_shard(folder / "p.h5", [phantom_case("p0"), case])
    export_x2ct(shards=[shard], simulator="parallel", out=folder / "x2ct")
    return case, folder / "x2ct"


def load(path):
    """Volume (D, H, W) and X-rays (H, W) after X2CT's Permute((1, 0, 2))."""
    with h5py.File(path, "r") as file:
        assert sorted(file) == ["ct", "xray1", "xray2"]
        return np.transpose(file["ct"][...], (1, 0, 2)), file["xray1"][...], file["xray2"][...]


def test_one_folder_per_case_and_the_types_of_the_layout(exported):
    _, out = exported
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.h5")) == [
        "p0/ct_xray_data.h5",
        "p1/ct_xray_data.h5",
    ]
    ct, xray1, xray2 = load(out / "p1" / "ct_xray_data.h5")
    assert (ct.dtype, xray1.dtype, xray2.dtype) == (np.int16, np.uint8, np.uint8)
    assert ct.min() >= 0 and ct.max() <= 2500
    assert [int(xray1.min()), int(xray1.max()), int(xray2.min()), int(xray2.max())] == [0, 255, 0, 255]


def test_volume_and_images_lie_on_each_other(exported):
    case, out = exported
    ct, xray1, xray2 = load(out / "p1" / "ct_xray_data.h5")
    depth, height, width = ct.shape
    assert (depth, height, width) == case.ct_hu.shape
    attenuation = np.maximum(ct.astype(float) - 24, 0)  # zero at -1000 HU
    for image, projected, columns in (
        (xray1, attenuation.sum(axis=1), width),
        (xray2, attenuation.sum(axis=2), height),
    ):
        rows, across = image.shape  # the detector is larger than the volume and centred on it
        top, left = (rows - depth) // 2, (across - columns) // 2
        inside = image[top : top + depth, left : left + columns].astype(float)
        np.testing.assert_allclose(inside, projected / projected.max() * 255, atol=1.0)


def test_values_by_hand():
    ct_hu = np.full((2, 3, 4), -1024, np.int16)
    ct_hu[0, 1, 3], ct_hu[1, 2, 0] = 1500, 200  # (z, y, x)
    out = x2ct_volume(ct_hu, np.diag([1.0, 2.0, 3.0, 1.0]))
    assert out.shape == (3, 2, 4)  # (y, z, x), each reversed
    assert (out[1, 1, 0], out[0, 0, 3]) == (2500, 1224)
    assert int(out.sum()) == 2500 + 1224


def test_a_volume_stored_in_another_order_exports_the_same():
    ct_hu = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    mirrored = np.diag([-1.0, 2.0, 3.0, 1.0])
    np.testing.assert_array_equal(
        x2ct_volume(ct_hu[:, :, ::-1], mirrored), x2ct_volume(ct_hu, np.diag([1.0, 2.0, 3.0, 1.0]))
    )


def test_an_image_of_one_value_becomes_zero():
    assert not x2ct_image(np.full((2, 3), 4.0, np.float32)).any()


def test_wrong_simulators_are_refused(tmp_path):
    case = phantom_case("p")
    one_view = xrays_of(case.ct_hu, case.affine, views=("PA", "RLAT"))
    shard = write_phantom_shard(tmp_path / "p.h5", [phantom_case("p", xrays={"odd": one_view})])
    with pytest.raises(UserError, match="has views PA, RLAT, the layout needs PA and LAT"):
        export_x2ct(shards=[shard], simulator="odd", out=tmp_path)
    with pytest.raises(UserError, match="no simulator 'cone'"):
        export_x2ct(shards=[shard], simulator="cone", out=tmp_path)


def test_a_case_id_cannot_leave_the_folder(tmp_path):
    shard = write_phantom_shard(tmp_path / "p.h5", [phantom_case("../../evil")])
    with pytest.raises(UserError, match="is not a file name"):
        export_x2ct(shards=[shard], simulator="cone", out=tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("ct_xray_data.h5"))
