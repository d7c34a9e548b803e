"""MetaImage: header and voxels in one file or in two, plain or zlib, and damage that ITK reads as zeros."""

from __future__ import annotations

import hashlib
import zlib

import numpy as np
import pytest

from pipeline.errors import CaseError
from pipeline.read import read_label, read_volume
from tests.pipeline.read_cases import AFFINE, MARKS_MM, SENTINEL, SHAPE, ct_phantom, marks_in_world, refused


def header_text(*, drop=(), **fields) -> str:
    """The header of the phantom as ITK writes it (LPS); `fields` overwrite or add lines."""
    lines = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "-1 0 0 0 -1 0 0 0 1",
        "Offset": "30 -15 400",
        "CenterOfRotation": "0 0 0",
        "AnatomicalOrientation": "RAI",
        "ElementSpacing": "2 3 2.5",
        "DimSize": "24 20 16",
        "Comment": SENTINEL,
        "ElementType": "MET_SHORT",
        "ElementDataFile": "LOCAL",
    } | fields
    lines["ElementDataFile"] = lines.pop("ElementDataFile")  # the last line, whatever was added
    return "".join(f"{name} = {value}\n" for name, value in lines.items() if name not in drop)


def mha_bytes(data=None, *, pack=False, **fields) -> bytes:
    voxels = (ct_phantom() if data is None else data).tobytes(order="F")
    fields = ({"CompressedData": "True"} if pack else {}) | fields
    return header_text(**fields).encode() + (zlib.compress(voxels) if pack else voxels)


@pytest.mark.parametrize("pack", [False, True], ids=["plain", "zlib"])
def test_one_file(tmp_path, pack):
    path = tmp_path / "s0007.mha"
    path.write_bytes(mha_bytes(pack=pack))
    volume = read_volume(path)
    assert volume.data.dtype == np.int16 and np.array_equal(volume.data, ct_phantom())
    assert np.array_equal(volume.affine, AFFINE) and marks_in_world(volume) == MARKS_MM
    assert volume.flags == () and volume.subject is None
    assert volume.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("pack", [False, True], ids=["plain", "zlib"])
def test_header_and_voxels_in_two_files_are_one_content(tmp_path, pack):
    text, voxels = mha_bytes(pack=pack, ElementDataFile="s0007 a.raw").split(b"s0007 a.raw\n")
    (tmp_path / "s0007.mhd").write_bytes(text + b"s0007 a.raw\n")
    refused(tmp_path / "s0007.mhd", "E_MISSING", "beside")
    (tmp_path / "s0007 a.raw").write_bytes(voxels)
    volume = read_volume(tmp_path / "s0007.mhd")
    assert np.array_equal(volume.data, ct_phantom()) and marks_in_world(volume) == MARKS_MM
    other = bytearray(zlib.compress((ct_phantom() + 1).tobytes(order="F")) if pack else voxels)
    other[-1] ^= not pack
    (tmp_path / "s0007 a.raw").write_bytes(other)
    assert read_volume(tmp_path / "s0007.mhd").source_sha256 != volume.source_sha256


def test_the_matrix_lists_the_direction_of_the_first_axis_first(tmp_path):
    """Axes stored as y, z, x: an asymmetric permutation, of which the transposed matrix would be another one."""
    turned = np.ascontiguousarray(ct_phantom().transpose(1, 2, 0))
    fields = {"TransformMatrix": "0 -1 0 0 0 1 -1 0 0", "ElementSpacing": "3 2.5 2", "DimSize": "20 16 24"}
    (tmp_path / "s0007").write_bytes(mha_bytes(turned, **fields))
    assert marks_in_world(read_volume(tmp_path / "s0007")) == MARKS_MM


def test_tilt_stays_in_the_affine(tmp_path):
    (tmp_path / "s0007").write_bytes(mha_bytes(TransformMatrix="-1 0 0 0 -1 0 0 0.25882 0.96593"))
    volume = read_volume(tmp_path / "s0007")
    assert volume.flags == ("SHEARED",)
    assert np.allclose(volume.affine[:3, 2], [0, -0.25882 * 2.5, 0.96593 * 2.5])


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (ct_phantom().astype(">i2"), {"BinaryDataByteOrderMSB": "True"}),
        (ct_phantom().astype(">i4"), {"ElementByteOrderMSB": "True", "ElementType": "MET_INT"}),
        (ct_phantom().astype(np.float32), {"ElementType": "MET_FLOAT"}),
        (ct_phantom().astype(np.float64), {"ElementType": "MET_DOUBLE"}),
        (ct_phantom().astype(np.int64), {"ElementType": "MET_LONG_LONG"}),
        (ct_phantom()[..., None], {
            "NDims": 4, "DimSize": "24 20 16 1", "ElementSpacing": "2 3 2.5 1", "Offset": "30 -15 400 0",
            "TransformMatrix": "-1 0 0 0 0 -1 0 0 0 0 1 0 0 0 0 1",
        }),
        (ct_phantom(), {
            "drop": ("TransformMatrix", "Offset"), "Orientation": "-1 0 0 0 -1 0 0 0 1", "Position": "30 -15 400",
        }),
    ],
    ids=["big", "big int", "float", "double", "long", "4-D of one", "other names"],
)  # fmt: skip
def test_what_writers_vary(tmp_path, data, fields):
    (tmp_path / "s0007").write_bytes(header_text(**fields).encode() + data.tobytes(order="F"))
    volume = read_volume(tmp_path / "s0007")
    assert np.array_equal(volume.data, ct_phantom()) and marks_in_world(volume) == MARKS_MM


@pytest.mark.parametrize(("pack", "code"), [(False, "E_TRUNCATED"), (True, "E_GZIP_TRUNCATED")])
@pytest.mark.parametrize("missing", [1, 4, 3000])
def test_n01_truncated(tmp_path, pack, code, missing):
    (tmp_path / "s0007").write_bytes(mha_bytes(pack=pack)[:-missing])
    refused(tmp_path / "s0007", code)


def test_n02_flipped_bits_are_noticed(tmp_path):
    content = mha_bytes(pack=True)
    start = content.index(b"LOCAL\n") + 6
    rng = np.random.default_rng(2)
    for place, bit in zip(rng.integers(start, len(content), 60), rng.integers(0, 8, 60), strict=True):
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        (tmp_path / "s0007").write_bytes(damaged)
        with pytest.raises(CaseError, match="E_GZIP"):
            read_volume(tmp_path / "s0007")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"drop": ("TransformMatrix",)}, "E_NO_ORIENTATION"),
        ({"drop": ("Offset",)}, "E_NO_ORIENTATION"),
        ({"drop": ("ElementSpacing",)}, "E_SPACING"),
        ({"drop": ("ElementDataFile",)}, "E_HEADER"),
        ({"drop": ("DimSize",)}, "E_HEADER"),
        ({"DimSize": "24 20"}, "E_HEADER"),
        ({"DimSize": "24 20 -16"}, "E_HEADER"),
        ({"DimSize": "24 20 1e99 16"}, "E_HEADER"),
        ({"NDims": "2", "DimSize": "24 20"}, "E_DIM"),
        ({"DimSize": "24 20 sixteen"}, "E_HEADER"),
        ({"DimSize": "24 20 17"}, "E_TRUNCATED"),
        ({"DimSize": "32767 32767 32767"}, "E_TOO_LARGE"),
        ({"TransformMatrix": "1 0 0 1"}, "E_HEADER"),
        ({"TransformMatrix": "1 0 0 0 1 0 0 1 0"}, "E_AFFINE_SINGULAR"),
        ({"Offset": "nan 0 0"}, "E_AFFINE_SINGULAR"),
        ({"ElementSpacing": "2 3 0"}, "E_SPACING"),
        ({"ElementSpacing": "2 3 1"}, "E_EXTENT"),
        ({"ElementType": "MET_SHORT_ARRAY"}, "E_DTYPE"),
        ({"ElementNumberOfChannels": "3"}, "E_DTYPE"),
        ({"ObjectType": "Tube"}, "E_HEADER"),
        ({"BinaryData": "False"}, "E_HEADER"),
        ({"HeaderSize": "-1"}, "E_HEADER"),
        ({"ElementDataFile": "LIST"}, "E_HEADER"),
        ({"ElementDataFile": "../secret.raw"}, "E_HEADER"),
        ({"ElementDataFile": "/etc/hostname"}, "E_HEADER"),
        ({"ElementDataFile": "slice%03d.raw"}, "E_HEADER"),
        ({"Comment": "x\nnonsense"}, "E_HEADER"),
    ],
    ids=str,
)
def test_bad_headers(tmp_path, fields, code):
    (tmp_path / "s0007").write_bytes(header_text(**fields).encode() + ct_phantom().tobytes(order="F"))
    refused(tmp_path / "s0007", code)


def test_n03_a_header_that_does_not_end(tmp_path):
    (tmp_path / "s0007").write_bytes(header_text().encode()[:-20])
    refused(tmp_path / "s0007", "E_TRUNCATED", "ElementDataFile")


def test_labels(tmp_path):
    ids = np.zeros(SHAPE, np.uint8)
    ids[5, 3, 2] = 7
    (tmp_path / "s0008").write_bytes(mha_bytes(ids, ElementType="MET_UCHAR", pack=True))
    label = read_label(tmp_path / "s0008")
    assert np.array_equal(label.data, ids) and label.data.dtype == np.int16 and np.array_equal(label.affine, AFFINE)


def test_any_header_damage_ends_in_a_reason_or_a_volume(tmp_path):
    good = mha_bytes()
    end = good.index(b"LOCAL\n")
    rng = np.random.default_rng(5)
    read, codes = 0, set()
    for place, value in zip(rng.integers(0, end, 400), rng.integers(0, 256, 400), strict=True):
        damaged = bytearray(good)
        damaged[place] = value
        (tmp_path / "s0007").write_bytes(damaged)
        try:
            read += read_volume(tmp_path / "s0007").data.shape == SHAPE
        except CaseError as error:
            codes.add(error.code)
            assert SENTINEL not in str(error)
    assert read > 50 and len(codes) >= 4
