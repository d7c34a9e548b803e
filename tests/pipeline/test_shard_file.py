"""The shard as a file: the promised names, the same bytes twice, and nothing half-written."""

import hashlib
import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.files import array_sha256
from tests.phantoms import AFFINE, phantom_case, write_phantom_shard


@pytest.fixture(scope="module")
def cases():
    return [phantom_case("a"), phantom_case("b", shift=(2, -3, 4), subject="key-a", flags=("METAL", "SHEARED"))]


def test_h06_the_same_content_is_the_same_bytes(tmp_path, cases):
    digests = {
        hashlib.sha256(write_phantom_shard(tmp_path / f"{n}.h5", cases).read_bytes()).hexdigest() for n in range(2)
    }
    assert len(digests) == 1


def test_what_was_written_is_there_under_its_promised_name(tmp_path, cases):
    with h5py.File(write_phantom_shard(tmp_path / "s.h5", cases), "r") as file:
        assert (file.attrs["schema"], file.attrs["schema_version"]) == ("xr2ct/shard", "1.0.0")
        assert file.attrs["complete"] == 1 and file.attrs["world"] == "RAS mm"
        assert file.attrs["volume_axes"] == "z:S y:A x:R"
        np.testing.assert_array_equal(file["ct"][1], cases[1].ct_hu)
        np.testing.assert_array_equal(file["label"][0], cases[0].label)
        np.testing.assert_array_equal(file["case/affine"][0], AFFINE)
        assert file["case/id"].asstr()[:].tolist() == ["a", "b"]
        assert file["case/subject_key"].asstr()[1] == "key-a"
        assert file["case/ct_sha256"].asstr()[0] == array_sha256(cases[0].ct_hu)
        assert file["case/qc_flags"][:].tolist() == [0, 5]
        for name in ("ct", "label", "xray/cone/image"):
            data = file[name]
            assert (data.compression, data.shuffle, data.fletcher32) == ("gzip", True, True), name
            assert data.chunks == (1, *data.shape[1:]), name
        assert file["ct"].dtype == "<i2" and file["label"].dtype == "u1" and file["xray/cone/image"].dtype == "<f4"
        assert [file["ct"].dims[axis][0].name for axis in (1, 2, 3)] == ["/z", "/y", "/x"]
        image = file["xray/cone/image"]
        assert [image.dims[axis][0].name for axis in (1, 2, 3)] == [f"/xray/cone/{n}" for n in ("view", "v", "u")]
        assert file["x"].attrs["units"] == "mm" and file["x"][1] == 3.0
        assert file["label"].attrs["flag_meanings"] == "background ball rod plate"
        json.loads(file.attrs["config_json"])


def test_no_time_host_or_path_is_inside(tmp_path, cases):
    content = write_phantom_shard(tmp_path / "s.h5", cases).read_bytes()
    for secret in (str(tmp_path), __import__("getpass").getuser(), __import__("socket").gethostname()):
        assert len(secret) < 4 or secret.encode() not in content


def test_views_are_stored_in_the_order_they_were_asked_for(tmp_path, cases):
    with h5py.File(write_phantom_shard(tmp_path / "s.h5", cases), "r") as file:
        for simulator in ("parallel", "cone"):
            group = file[f"xray/{simulator}"]
            assert group["view"].asstr()[:].tolist() == ["PA", "LAT"]
            beam = group["source_mm"][0, :, :3] if simulator == "parallel" else None
            if beam is not None:
                np.testing.assert_array_equal(beam, [[0, 1, 0], [-1, 0, 0]])
            np.testing.assert_array_equal(group["image"][1], cases[1].xrays[simulator].image)


def test_a_case_of_another_shape_is_refused_and_nothing_appears(tmp_path, cases):
    other = replace(cases[1], ct_hu=np.zeros((3, 4, 5), np.int16), label=np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(UserError, match=r"case b: ct has shape \(3, 4, 5\); expected \(20, 24, 28\)"):
        write_phantom_shard(tmp_path / "s.h5", [cases[0], other])
    assert list(tmp_path.iterdir()) == []


def test_cases_simulated_differently_do_not_share_a_shard(tmp_path, cases):
    other = replace(cases[1].xrays["cone"], views=("LAT", "PA"))
    with pytest.raises(UserError, match="case b: simulator cone differs"):
        write_phantom_shard(tmp_path / "s.h5", [cases[0], replace(cases[1], xrays=cases[1].xrays | {"cone": other})])


def test_an_empty_shard_is_refused(tmp_path):
    with pytest.raises(UserError, match="no case to write"):
        write_phantom_shard(tmp_path / "s.h5", [])
