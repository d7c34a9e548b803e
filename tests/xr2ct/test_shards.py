"""The reader against a shard written by hand, and against shards it must refuse."""

import multiprocessing
import pickle
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from tests.phantoms import phantom_case, write_phantom_shard
from tests.xr2ct.golden import AFFINE, DETECTOR, DIRECTION, PARALLEL, SHAPE, ct_hu, image, label, write_golden_shard
from xr2ct.errors import UserError
from xr2ct.shards import CUT, Shard, open_shards


@pytest.fixture
def golden(tmp_path):
    return write_golden_shard(tmp_path / "golden.h5")


def test_h14_the_golden_shard_of_release_1_0_reads(golden):
    shard = Shard(golden)
    assert (len(shard), shard.shape, shard.structures) == (2, (2, *SHAPE), ("background", "heart", "liver"))
    assert set(shard.simulators) == {"cone", "parallel"}
    assert (shard.attrs["dataset"], shard.attrs["n_cases"], type(shard.attrs["n_cases"])) == ("golden", 2, int)
    case = shard.case(1)
    assert (case.id, case.subject_key, case.dataset, case.split) == ("case-b", "s2", "golden", "train")
    assert (case.derived_from, case.qc_flags) == ("case-a", 4)
    assert shard.case(0).derived_from == ""
    assert (shard.case_id(1), shard.subject_key(1)) == ("case-b", "s2")
    np.testing.assert_array_equal(case.affine, AFFINE)
    np.testing.assert_array_equal(case.ct_hu, ct_hu(1))
    np.testing.assert_array_equal(case.label, label(1))
    np.testing.assert_array_equal(shard.case(0).label_status, [3, 3, CUT])
    assert (case.ct_hu.dtype, case.label.dtype, case.label_status.dtype) == (np.int16, np.uint8, np.uint8)
    xray = shard.xray(1, "parallel")
    assert (xray.views, xray.attrs) == (["LAT"], {"beam": "parallel", "energy_kev": 60.0})
    np.testing.assert_array_equal(xray.image, image(1))
    np.testing.assert_array_equal(xray.projection, PARALLEL[None])
    np.testing.assert_array_equal(xray.source_mm, DIRECTION[None])
    np.testing.assert_array_equal(xray.detector_mm, DETECTOR[None])


def test_what_the_pipeline_writes_reads_back_equal(tmp_path):
    given = phantom_case("p1", shift=(0.04, 0, 0.03))
    shard = Shard(write_phantom_shard(tmp_path / "p.h5", [phantom_case("p0"), given], split="test"))
    case = shard.case(1)
    np.testing.assert_array_equal(case.ct_hu, given.ct_hu)
    np.testing.assert_array_equal(case.label, given.label)
    np.testing.assert_array_equal(case.affine, given.affine)
    assert (case.id, case.split, case.subject_key) == ("p1", "test", "key-p1")
    for simulator, expected in given.xrays.items():
        xray = shard.xray(1, simulator)
        assert tuple(xray.views) == expected.views
        for name in ("image", "projection", "source_mm", "detector_mm"):
            np.testing.assert_array_equal(getattr(xray, name), getattr(expected, name))


def test_h05_a_newer_minor_version_with_unknown_content_reads(golden):
    with h5py.File(golden, "a") as file:
        file.attrs["schema_version"] = "1.9.0"
        file.attrs["colour"] = "blue"
        file["case/weight_kg"] = [70.0, 80.0]
        file["xray/cone/scatter"] = np.zeros(4)
    assert Shard(golden).case(0).id == "case-a"
    assert Shard(golden).xray(0, "cone").image.shape == (1, 2, 3)


def set_attribute(name, value):
    def damage(file):
        if value is None:
            del file.attrs[name]
        else:
            file.attrs[name] = value

    return damage


def external_link(file):
    file["case/extra"] = h5py.ExternalLink("/etc/hostname", "/")


def soft_link(file):
    file["case/extra"] = h5py.SoftLink("/ct")


def external_storage(file):
    file.create_dataset("case/extra", (10,), "u1", external=[("/etc/hostname", 0, 10)])


def virtual_dataset(file):
    layout = h5py.VirtualLayout((5,), "u1")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "ct", (5,))
    file.create_virtual_dataset("case/extra", layout)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (set_attribute("schema", "other/shard"), "schema is 'other/shard', expected 'xr2ct/shard'"),
        (set_attribute("schema", None), "schema is None"),
        (set_attribute("schema_version", "2.0.0"), "schema_version is 2.0.0, expected 1.x"),
        (set_attribute("schema_version", "10.0.0"), "schema_version is 10.0.0, expected 1.x"),
        (set_attribute("complete", 0), "complete is 0, expected 1"),
        (set_attribute("complete", None), "complete is None, expected 1"),
        (external_link, "/case/extra points outside"),
        (soft_link, "/case/extra points outside"),
        (external_storage, "/case/extra points outside"),
        (virtual_dataset, "/case/extra points outside"),
    ],
)
def test_h04_h05_h12_foreign_files_are_refused_by_name(golden, damage, message):
    with h5py.File(golden, "a") as file:
        damage(file)
    with pytest.raises(UserError, match=r"golden.h5: ") as error:
        Shard(golden)
    assert message in str(error.value)


def test_h03_not_a_shard_and_no_file_are_refused_by_name(tmp_path, golden):
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "short.h5").write_bytes(golden.read_bytes()[:-200])
    for name in ("text.h5", "short.h5", "absent.h5"):
        with pytest.raises(UserError, match=rf"{name}: cannot be opened"):
            open_shards([golden, tmp_path / name])


def test_a_missing_part_is_named(golden):
    with h5py.File(golden, "a") as file:
        del file["case/affine"]
    with pytest.raises(UserError, match=r"golden.h5: /case/affine is missing or damaged"):
        Shard(golden).case(0)


def test_h02_a_flipped_bit_raises_and_names_dataset_and_shard(golden):
    with h5py.File(golden, "r") as file:
        chunk = file["ct"].id.get_chunk_info(1)
    content = bytearray(golden.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 4
    golden.write_bytes(content)
    assert Shard(golden).case(0).id == "case-a"
    with pytest.raises(UserError, match=r"golden.h5: /ct is missing or damaged"):
        Shard(golden).case(1)


def test_a_wrong_simulator_gets_the_valid_ones(golden):
    with pytest.raises(UserError, match=r"no simulator 'conical'. Use one of cone, parallel"):
        Shard(golden).xray(0, "conical")


def test_pickling_drops_the_handle_and_keeps_the_shard(golden):
    shard = Shard(golden)
    shard.case(0)
    copy = pickle.loads(pickle.dumps(shard))
    assert copy._file is None and len(copy) == 2
    np.testing.assert_array_equal(copy.case(1).ct_hu, shard.case(1).ct_hu)


def read_sum(shard):
    return int(shard.case(1).ct_hu.sum())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_the_same(golden, method):
    shard = Shard(golden)
    expected = read_sum(shard)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(read_sum, [shard] * 4) == [expected] * 4


def test_h10_a_read_only_copy_reads(golden, tmp_path):
    folder = tmp_path / "read only"
    folder.mkdir()
    shutil.copy(golden, folder / "é 1.h5")
    (folder / "é 1.h5").chmod(0o444)
    folder.chmod(0o555)
    assert Shard(folder / "é 1.h5").case(0).id == "case-a"
    folder.chmod(0o755)


def test_reading_shards_imports_h5py_numpy_and_the_standard_library_only():
    code = (
        "import sys; import h5py, numpy; before = set(sys.modules); import xr2ct.shards; "
        "print(*{m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"xr2ct", "h5py", "numpy"}
    code = "import sys, xr2ct.shards; print(*sorted(m for m in sys.modules if m.startswith('xr2ct.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["xr2ct.errors", "xr2ct.shards"]
