"""Wide numbers become float32 or int16 block by block, to the same values as all at once, and none is lost unseen."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from pipeline.read import read_label, read_volume, values
from tests.pipeline.read_cases import SHAPE, ct_phantom, refused
from tests.pipeline.test_read_mha import mha_bytes
from tests.pipeline.test_read_nifti import nifti_bytes
from tests.pipeline.test_read_nrrd import nrrd_bytes

WIDE = ["<f8", ">f8", "<i8", ">i8", "<u8"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """37 voxels of 8 bytes: the last block is not full, and blocks end within rows."""
    monkeypatch.setattr(values, "_BLOCK_BYTES", 37 * 8)
    assert np.prod(SHAPE) % 37 and SHAPE[0] % 37


def nifti(data: np.ndarray, **fields) -> bytes:
    """The phantom's header with the numbers of `data`, in their byte order."""
    raw = nifti_bytes(data.astype(data.dtype.newbyteorder("<")), **fields)
    if data.dtype.str.startswith(">"):
        raw = nib.Nifti1Header(raw[:348], check=False).as_byteswapped(">").binaryblock + raw[348:352]
        raw += data.tobytes(order="F")
    return raw


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("dtype", WIDE)
def test_whole_numbers_become_int16(tmp_path, dtype, pack):
    ct = ct_phantom() + (1024 if dtype == "<u8" else 0)
    (tmp_path / "s0007").write_bytes(
        pack(nifti(ct.astype(dtype), scl_slope=1, scl_inter=ct_phantom().min() - ct.min()))
    )
    volume = read_volume(tmp_path / "s0007")
    assert volume.data.dtype == np.int16 and np.array_equal(volume.data, ct_phantom())


@pytest.mark.parametrize("dtype", ["<f8", ">f8", ">f4"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (0.5, -3.25), (-2, 7)])
def test_fractions_become_the_nearest_float32_of_the_exact_hu(tmp_path, dtype, slope, intercept):
    """The scaling is done before the rounding: the other way round the last bit would differ."""
    stored = ((ct_phantom() + 0.1 - intercept) / slope).astype(dtype)
    (tmp_path / "s0007").write_bytes(nifti(stored, scl_slope=slope, scl_inter=intercept))
    exact = (stored.astype(np.float64) * slope + intercept).astype(np.float32)
    assert np.array_equal(read_volume(tmp_path / "s0007").data, exact)


@pytest.mark.parametrize("write", [nrrd_bytes, lambda data: mha_bytes(data, ElementType="MET_DOUBLE")])
def test_nrrd_and_metaimage_are_read_the_same_way(tmp_path, write):
    (tmp_path / "s0007").write_bytes(write(ct_phantom() + 0.1))
    assert np.array_equal(read_volume(tmp_path / "s0007").data, (ct_phantom() + 0.1).astype(np.float32))
    (tmp_path / "s0007").write_bytes(write(ct_phantom() + 0.0))
    assert read_volume(tmp_path / "s0007").data.dtype == np.int16


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_float32_cannot_hold_count_as_lost(tmp_path, bad):
    ct = ct_phantom().astype(float)
    ct[3, 3, 3] = bad
    (tmp_path / "s0007").write_bytes(nifti(ct))
    volume = read_volume(tmp_path / "s0007")
    assert volume.flags == ("NONFINITE_FIXED",) and volume.data[3, 3, 3] == -1024
    ct[:, :, :2] = bad
    (tmp_path / "s0007").write_bytes(nifti(ct))
    refused(tmp_path / "s0007", "E_NONFINITE")


@pytest.mark.parametrize("offset", [1 << 15, 1 << 32])
def test_integers_of_64_bits_never_wrap(tmp_path, offset):
    (tmp_path / "s0007").write_bytes(nifti(ct_phantom().astype(np.int64) + offset))
    refused(tmp_path / "s0007", "E_HU_RANGE")


@pytest.mark.parametrize("dtype", WIDE)
def test_labels_of_64_bits(tmp_path, dtype):
    ids = (np.arange(np.prod(SHAPE)) % 301).reshape(SHAPE)
    ids[0, 0, 0] = 32767
    (tmp_path / "s0007").write_bytes(nifti(ids.astype(dtype)))
    found = read_label(tmp_path / "s0007").data
    assert found.dtype == np.int16 and np.array_equal(found, ids)
    for wrong in (32768, 65536 + 5, 1 << 40, *((-1,) if dtype != "<u8" else ()), *((2.5,) if "f" in dtype else ())):
        bad = ids.astype(dtype)
        bad[4, 4, 4] = wrong
        (tmp_path / "s0007").write_bytes(nifti(bad))
        refused(tmp_path / "s0007", "E_LABEL_VALUES", read=read_label)


@pytest.mark.parametrize("missing", [1, 8, 1000])
def test_a_cut_file_is_told_with_what_was_found(tmp_path, missing):
    raw = nifti(ct_phantom() + 0.1)
    voxels = 8 * int(np.prod(SHAPE))
    (tmp_path / "s0007").write_bytes(gzip.compress(raw[:-missing]))
    refused(tmp_path / "s0007", "E_TRUNCATED", f"found {voxels - missing} bytes", f"expected {voxels}")
    (tmp_path / "s0007").write_bytes(gzip.compress(raw)[:-missing])
    refused(tmp_path / "s0007", "E_GZIP_TRUNCATED")


def test_the_checksum_behind_the_last_block_is_read(tmp_path):
    packed = bytearray(gzip.compress(nifti(ct_phantom() + 0.1)))
    packed[-8] ^= 1
    (tmp_path / "s0007").write_bytes(packed)
    refused(tmp_path / "s0007", "E_GZIP_CRC")
