"""NRRD: three frames of the world, cropped label boxes, damage that pynrrd would not notice."""

from __future__ import annotations

import gzip
import hashlib

import nrrd
import numpy as np
import pytest

from pipeline.errors import CaseError
from pipeline.read import read_label, read_volume
from tests.pipeline.read_cases import AFFINE, MARKS_MM, SENTINEL, SHAPE, ct_phantom, marks_in_world, refused

TO_RAS = {
    "right-anterior-superior": (1, 1, 1),
    "RAS": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "LAS": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "LPS": (-1, -1, 1),
}


def nrrd_bytes(data=None, *, space="left-posterior-superior", encoding="gzip", drop=(), **fields) -> bytes:
    """A single-file NRRD as text and bytes, written without pynrrd; `fields` (spaces as _) overwrite or add lines."""
    data = ct_phantom() if data is None else data
    signs = TO_RAS[space]
    vector = [",".join(f"{sign * value:g}" for sign, value in zip(signs, AFFINE[:3, c], strict=True)) for c in range(4)]
    lines = {
        "type": {"int16": "short", "uint8": "unsigned char", "float32": "float", "float64": "double"}[data.dtype.name],
        "dimension": data.ndim,
        "space": space,
        "sizes": " ".join(map(str, data.shape)),
        "space directions": " ".join(f"({column})" for column in vector[:3]),
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": encoding,
        "space origin": f"({vector[3]})",
    }
    lines |= {name.replace("_", " "): value for name, value in fields.items()}
    header = "NRRD0004\n# made by the tests\n"
    header += "".join(f"{name}: {value}\n" for name, value in lines.items() if name not in drop)
    voxels = data.tobytes(order="F")
    return (
        header.encode()
        + f"PatientName:={SENTINEL}\n\n".encode()
        + (gzip.compress(voxels) if encoding != "raw" else voxels)
    )


@pytest.mark.parametrize("space", TO_RAS)
@pytest.mark.parametrize("encoding", ["raw", "gzip", "gz"])
def test_every_frame_becomes_ras(tmp_path, space, encoding):
    path = tmp_path / "s0007.nrrd"
    path.write_bytes(nrrd_bytes(space=space, encoding=encoding))
    volume = read_volume(path)
    assert np.array_equal(volume.data, ct_phantom()) and volume.data.dtype == np.int16
    assert np.array_equal(volume.affine, AFFINE) and marks_in_world(volume) == MARKS_MM
    assert volume.flags == () and volume.subject is None
    assert volume.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_pynrrd_wrote(tmp_path):
    header = {
        "space": "left-posterior-superior",
        "space directions": np.array([[0, -3.0, 0], [0, 0, 2.5], [-2.0, 0, 0]]),
        "space origin": np.array([30.0, -15, 400]),
        "space units": ["mm", "mm", "mm"],
    }
    turned = np.ascontiguousarray(ct_phantom().transpose(1, 2, 0))  # axes y, z, x
    nrrd.write(str(tmp_path / "s0007.nrrd"), turned, header)
    volume = read_volume(tmp_path / "s0007.nrrd")
    assert volume.data.shape == (20, 16, 24) and marks_in_world(volume) == MARKS_MM


def test_byte_order_and_number_types(tmp_path):
    path = tmp_path / "s0007.nrrd"
    path.write_bytes(nrrd_bytes(ct_phantom().astype(">i2"), endian="big"))
    assert np.array_equal(read_volume(path).data, ct_phantom())
    path.write_bytes(nrrd_bytes(ct_phantom() + np.float32(0.5)))
    assert read_volume(path).data.dtype == np.float32
    path.write_bytes(nrrd_bytes(drop=("endian",)))
    refused(path, "E_HEADER", "endian")
    path.write_bytes(nrrd_bytes(type="block"))
    refused(path, "E_DTYPE")


def test_tilt_stays_in_the_affine(tmp_path):
    path = tmp_path / "s0007.nrrd"
    path.write_bytes(nrrd_bytes(space_directions="(-2,0,0) (0,-3,0) (0,0.67,2.5)"))
    volume = read_volume(path)
    assert volume.flags == ("SHEARED",)
    assert np.allclose(volume.affine[:, 2], [0, -0.67, 2.5, 0])


@pytest.mark.parametrize("missing", ["space", "space directions", "space origin"])
def test_no_orientation(tmp_path, missing):
    path = tmp_path / "s0007.nrrd"
    path.write_bytes(nrrd_bytes(drop=(missing,)))
    refused(path, "E_NO_ORIENTATION")


def test_a_frame_that_is_no_patient_s(tmp_path):
    path = tmp_path / "s0007.nrrd"
    path.write_bytes(nrrd_bytes().replace(b"left-posterior-superior", b"scanner-xyz"))
    refused(path, "E_NO_ORIENTATION", "RAS, LAS, LPS")


@pytest.mark.parametrize("encoding, code", [("raw", "E_TRUNCATED"), ("gzip", "E_GZIP_TRUNCATED")])
@pytest.mark.parametrize("missing", [1, 8, 3000])
def test_truncated(tmp_path, encoding, code, missing):
    path = tmp_path / "s0007.nrrd"
    path.write_bytes(nrrd_bytes(encoding=encoding)[:-missing])
    refused(path, code)


def test_truncated_header_and_early_clean_end(tmp_path):
    path = tmp_path / "s0007.nrrd"
    path.write_bytes(nrrd_bytes()[:150])
    refused(path, "E_TRUNCATED", "header")
    path.write_bytes(nrrd_bytes(sizes="24 20 17"))
    refused(path, "E_TRUNCATED", str(24 * 20 * 17 * 2))


def test_flipped_bits_are_noticed(tmp_path):
    content = nrrd_bytes()
    start = content.index(b"\n\n") + 2
    path = tmp_path / "s0007.nrrd"
    rng = np.random.default_rng(2)
    for place, bit in zip(rng.integers(start + 10, len(content), 60), rng.integers(0, 8, 60), strict=True):
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(CaseError, match="E_GZIP"):
            read_volume(path)


@pytest.mark.parametrize(
    "fields, code",
    [
        ({"encoding": "bzip2"}, "E_HEADER"),
        ({"sizes": "24 20"}, "E_HEADER"),
        ({"sizes": "24 20 x"}, "E_HEADER"),
        ({"sizes": "24 -20 16"}, "E_HEADER"),
        ({"data_file": "other.raw"}, "E_HEADER"),
        ({"byte_skip": "10"}, "E_HEADER"),
        ({"space_directions": "(2,0) (0,3) (0,0)"}, "E_HEADER"),
        ({"space_origin": "(nan,0,0)"}, "E_AFFINE_SINGULAR"),
        ({"space_directions": "(2,0,0) (0,3,0) (0,2,0)"}, "E_AFFINE_SINGULAR"),
        ({"space_directions": "(2,0,0) (0,3,0) (0,0,0)"}, "E_SPACING"),
        ({"space_directions": "(2,0,0) (0,3,0) (0,0,1)"}, "E_EXTENT"),
        ({"space_units": '"m" "m" "m"'}, "E_UNITS"),
        ({"sizes": "32767 32767 32767"}, "E_TOO_LARGE"),
    ],
    ids=str,
)
def test_bad_headers(tmp_path, fields, code):
    path = tmp_path / "s0007.nrrd"
    path.write_bytes(nrrd_bytes(**fields))
    refused(path, code)


def test_other_axes(tmp_path):
    path = tmp_path / "s0007.nrrd"
    with_list = {"space_directions": "none (-2,0,0) (0,-3,0) (0,0,2.5)", "kinds": "list domain domain domain"}
    path.write_bytes(nrrd_bytes(ct_phantom()[None], **with_list))
    assert marks_in_world(read_volume(path)) == MARKS_MM
    path.write_bytes(nrrd_bytes(np.stack([ct_phantom()] * 2), **with_list))
    refused(path, "E_DIM", "2 x 24 x 20 x 16")
    path.write_bytes(nrrd_bytes(ct_phantom()[:, :, 0], space_directions="(2,0,0) (0,3,0)", kinds="domain domain"))
    refused(path, "E_DIM")


def test_cropped_segmentation_keeps_its_own_box(tmp_path):
    ids = np.zeros((5, 4, 3), np.uint8)
    ids[4, 0, 1] = 7
    path = tmp_path / "s0007.seg.nrrd"
    path.write_bytes(nrrd_bytes(ids, space_origin="(20,-30,410)", Segment0_LabelValue=7))
    label = read_label(path)
    assert np.array_equal(label.data, ids) and label.data.dtype == np.int16
    assert tuple(label.affine @ [4, 0, 1, 1])[:3] == (-20 + 4 * 2, 30, 412.5)
    path.write_bytes(nrrd_bytes(ids.astype(np.float32) + np.float32(0.5)))
    refused(path, "E_LABEL_VALUES", read=read_label)


def test_a_ct_has_to_be_one(tmp_path):
    path = tmp_path / "s0007.nrrd"
    path.write_bytes(nrrd_bytes(np.zeros(SHAPE, np.uint8)))
    refused(path, "E_CONSTANT")


def test_any_header_damage_ends_in_a_reason_or_a_volume(tmp_path):
    good = nrrd_bytes()
    end = good.index(b"\n\n")
    path = tmp_path / "s0007.nrrd"
    rng = np.random.default_rng(11)
    read, codes = 0, set()
    for place, value in zip(rng.integers(0, end, 400), rng.integers(0, 256, 400), strict=True):
        damaged = bytearray(good)
        damaged[place] = value
        path.write_bytes(damaged)
        try:
            read += read_volume(path).data.shape == SHAPE
        except CaseError as error:
            codes.add(error.code)
    assert read > 50 and len(codes) >= 4
