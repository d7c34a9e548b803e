"""NIfTI: the case list N1 to N21 of damaged and unusual files, each made by hand from one good file."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import time
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from pipeline.errors import CaseError
from pipeline.flags import FLAG_BITS
from pipeline.read import read_label, read_volume
from tests.pipeline.read_cases import AFFINE, MARKS_MM, SENTINEL, SHAPE, ct_phantom, marks_in_world, refused


def nifti_bytes(data=None, affine=AFFINE, *, kind=nib.Nifti1Image, qform=None, **fields) -> bytes:
    """A plain NIfTI file; `fields` overwrite header fields after nibabel is done with them, `dim` included."""
    data = ct_phantom() if data is None else data
    image = kind(data, None, dtype=data.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine if qform is None else qform, code=1, strip_shears=True)
    image.header["descrip"] = image.header["aux_file"] = image.header["intent_name"] = SENTINEL
    raw = bytearray(image.to_bytes())
    header = type(image.header)(bytes(raw[: image.header.sizeof_hdr]), check=False)
    for name, value in fields.items():
        header[name] = value
    raw[: header.sizeof_hdr] = header.binaryblock
    return bytes(raw)


def test_good_file(tmp_path):
    path = tmp_path / "s0007.nii.gz"
    path.write_bytes(gzip.compress(nifti_bytes()))
    volume = read_volume(path)
    assert volume.data.dtype == np.int16 and np.array_equal(volume.data, ct_phantom())
    assert volume.affine.dtype == np.float64 and np.array_equal(volume.affine, AFFINE)
    assert volume.flags == () and volume.subject is None
    assert volume.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert marks_in_world(volume) == MARKS_MM


@pytest.mark.parametrize("name", ["s0007.nii", "s0007.nii.gz", "s0007"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_n04_the_content_counts_not_the_name(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(nifti_bytes()))
    assert np.array_equal(read_volume(tmp_path / name).data, ct_phantom())


def test_n21_neighbours_are_not_mixed(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti_bytes()))
    (tmp_path / "a.nii").write_bytes(nifti_bytes(ct_phantom()[::-1].copy()))
    assert np.array_equal(read_volume(tmp_path / "a.nii.gz").data, ct_phantom())
    assert np.array_equal(read_volume(tmp_path / "a.nii").data, ct_phantom()[::-1])


def test_nifti_2_and_big_endian(tmp_path):
    (tmp_path / "two.nii").write_bytes(nifti_bytes(kind=nib.Nifti2Image))
    header = nib.Nifti1Header(nifti_bytes()[:348]).as_byteswapped(">")
    voxels = ct_phantom().astype(">i2").tobytes(order="F")
    (tmp_path / "big.nii").write_bytes(header.binaryblock + b"\0" * 4 + voxels)
    for name in ("two.nii", "big.nii"):
        assert marks_in_world(read_volume(tmp_path / name)) == MARKS_MM


def test_several_gzip_members_are_one_file(tmp_path):
    raw = nifti_bytes()
    (tmp_path / "s0007").write_bytes(gzip.compress(raw[:5000]) + gzip.compress(raw[5000:]) + b"\0" * 512)
    assert np.array_equal(read_volume(tmp_path / "s0007").data, ct_phantom())


def test_missing_file(tmp_path):
    refused(tmp_path / "none.nii.gz", "E_MISSING")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_n01_truncated_gzip(tmp_path, share):
    packed = gzip.compress(nifti_bytes())
    (tmp_path / "s0007").write_bytes(packed[: int(share * len(packed))])
    refused(tmp_path / "s0007", "E_GZIP_TRUNCATED", "incomplete")


@pytest.mark.parametrize("missing", [1, 4, 8])
def test_n01_gzip_without_its_last_bytes(tmp_path, missing):
    (tmp_path / "s0007").write_bytes(gzip.compress(nifti_bytes())[:-missing])
    refused(tmp_path / "s0007", "E_GZIP_TRUNCATED")


def test_wrong_checksum_and_junk_behind(tmp_path):
    packed = bytearray(gzip.compress(nifti_bytes()))
    (tmp_path / "junk").write_bytes(bytes(packed) + b"<html>")
    refused(tmp_path / "junk", "E_GZIP_CRC")
    packed[-8] ^= 1
    (tmp_path / "s0007").write_bytes(packed)
    refused(tmp_path / "s0007", "E_GZIP_CRC", "checksum")


def test_n02_no_flipped_bit_gives_wrong_voxels(tmp_path):
    packed = gzip.compress(nifti_bytes(), mtime=0)
    rng = np.random.default_rng(1)
    codes = []
    for place, bit in zip(rng.integers(10, len(packed), 200), rng.integers(0, 8, 200), strict=True):
        damaged = bytearray(packed)
        damaged[place] ^= 1 << bit
        (tmp_path / "s0007").write_bytes(damaged)
        try:
            assert np.array_equal(read_volume(tmp_path / "s0007").data, ct_phantom())
        except CaseError as error:
            codes.append(error.code)
    assert codes.count("E_GZIP_CRC") > 150 and len(codes) == 200


@pytest.mark.parametrize("size", [100, 348, 352, 5000, -1])
def test_n03_short_plain_file(tmp_path, size):
    (tmp_path / "s0007.nii").write_bytes(nifti_bytes()[:size])
    refused(tmp_path / "s0007.nii", "E_TRUNCATED", "expected")


def test_n03_gzip_that_ends_early_but_cleanly(tmp_path):
    (tmp_path / "s0007.nii.gz").write_bytes(gzip.compress(nifti_bytes()[:9000]))
    refused(tmp_path / "s0007.nii.gz", "E_TRUNCATED")


@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><html>429</html>", b"just text", b"\x00" * 400, b"PK\x03\x04"]
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_n04_not_nifti(tmp_path, content, pack):
    (tmp_path / "s0007.nii.gz").write_bytes(pack(content))
    refused(tmp_path / "s0007.nii.gz", "E_NOT_NIFTI")


def test_analyze_pairs_and_single_dicom_files(tmp_path):
    (tmp_path / "s0007.hdr").write_bytes(nifti_bytes(magic=b"ni1"))
    refused(tmp_path / "s0007.hdr", "E_NOT_NIFTI", "two-file")
    (tmp_path / "s0007.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 400)
    refused(tmp_path / "s0007.dcm", "E_NOT_NIFTI", "folder of the series")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("dim", [(32767, 32767, 32767), (1200, 1200, 400)])
def test_n05_header_bomb(tmp_path, pack, dim):
    """Refused from the header alone: 200 MB and (a second when calm) at most a minute, whatever the header asks for."""
    (tmp_path / "s0007").write_bytes(pack(nifti_bytes(dim=[3, *dim, 1, 1, 1, 1])))
    tracemalloc.start()
    start = time.monotonic()
    with pytest.raises(CaseError) as caught:
        read_volume(tmp_path / "s0007")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - start < 60 and peak < 200e6
    small_plain = pack is bytes and dim[0] == 1200
    assert caught.value.code == ("E_TRUNCATED" if small_plain else "E_TOO_LARGE")


def test_gzip_bomb_behind_the_voxels(tmp_path):
    (tmp_path / "s0007").write_bytes(gzip.compress(nifti_bytes() + b"\0" * (80 << 20)))
    refused(tmp_path / "s0007", "E_TOO_LARGE", "follow")


@pytest.mark.parametrize("orientation", list(itertools.permutations(range(3))), ids=str)
def test_n06_all_48_orientations_show_the_same_patient(tmp_path, orientation):
    for flips in itertools.product([1, -1], repeat=3):
        source = nib.Nifti1Image(ct_phantom(), AFFINE)
        turned = source.as_reoriented(np.array(list(zip(orientation, flips, strict=True))))
        (tmp_path / "s0007").write_bytes(nifti_bytes(np.asarray(turned.dataobj), turned.affine))
        volume = read_volume(tmp_path / "s0007")
        assert marks_in_world(volume) == MARKS_MM and volume.flags == ()


@pytest.mark.parametrize("decimals", [2, 3, 4, 5, 6])
def test_n07_rounded_oblique_affine(tmp_path, decimals):
    """ITK refuses such files from 3 decimals down; they are good."""
    c, s = np.cos(0.3), np.sin(0.3)
    turn = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    tilt = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
    affine = np.round(turn @ tilt @ AFFINE, decimals)
    (tmp_path / "s0007").write_bytes(nifti_bytes(affine=affine))
    volume = read_volume(tmp_path / "s0007")
    assert np.allclose(volume.affine, affine, atol=1e-4) and volume.flags == ()


def test_n08_gantry_tilt_stays_in_the_affine(tmp_path):
    sheared = AFFINE.copy()
    sheared[1, 2] = -2.5 * np.tan(np.deg2rad(15))
    (tmp_path / "s0007").write_bytes(nifti_bytes(affine=sheared, qform_code=0))
    volume = read_volume(tmp_path / "s0007")
    assert np.allclose(volume.affine, sheared, atol=1e-6) and volume.flags == ("SHEARED",)
    (tmp_path / "s0007").write_bytes(nifti_bytes(affine=sheared))
    assert read_volume(tmp_path / "s0007").flags == ("QS_MISMATCH", "SHEARED")


@pytest.mark.parametrize("shear, flags", [(3.3e-3, ()), (8.7e-3, ("SHEARED",))])
def test_rounding_is_no_shear_but_half_a_degree_is(tmp_path, shear, flags):
    """Two decimals in the header give 3.3e-3 in reliable files; sin(0.5 deg) is 8.7e-3."""
    affine = AFFINE.copy()
    affine[0, 1] = 3.0 * shear
    (tmp_path / "s0007").write_bytes(nifti_bytes(affine=affine, qform_code=0))
    assert read_volume(tmp_path / "s0007").flags == flags


def test_n09_sform_wins_over_a_mirrored_qform(tmp_path):
    mirrored = np.diag([-1.0, 1, 1, 1]) @ AFFINE
    (tmp_path / "s0007").write_bytes(nifti_bytes(qform=mirrored))
    volume = read_volume(tmp_path / "s0007")
    assert volume.flags == ("QS_MISMATCH",) and marks_in_world(volume) == MARKS_MM
    (tmp_path / "s0007").write_bytes(nifti_bytes(qform=mirrored, sform_code=0))
    volume = read_volume(tmp_path / "s0007")
    assert volume.flags == () and np.allclose(volume.affine, mirrored, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "code", "flag"),
    [
        ({"qform": np.diag([-1.0, 1, 1, 1]) @ AFFINE}, "E_HEADER", "QS_MISMATCH"),
        ({"scl_slope": 0, "scl_inter": -1024}, "E_HEADER", "SCALING_IGNORED"),
        (
            {"data": np.where(ct_phantom() == 1001, np.nan, ct_phantom()).astype(np.float32)},
            "E_NONFINITE",
            "NONFINITE_FIXED",
        ),
    ],
    ids=["forms", "scaling", "nan"],
)
def test_n09_strict_reading_refuses_files_that_contradict_themselves(tmp_path, fields, code, flag):
    (tmp_path / "s0007").write_bytes(nifti_bytes(**fields))
    assert flag in read_volume(tmp_path / "s0007").flags
    refused(tmp_path / "s0007", code, flag, read=lambda path: read_volume(path, strict=True))
    (tmp_path / "s0007").write_bytes(nifti_bytes())
    assert read_volume(tmp_path / "s0007", strict=True).flags == ()


def test_n09_forms_half_a_voxel_apart_are_told(tmp_path):
    shifted = AFFINE.copy()
    shifted[0, 3] += 1.0
    (tmp_path / "s0007").write_bytes(nifti_bytes(qform=shifted))
    assert read_volume(tmp_path / "s0007").flags == ("QS_MISMATCH",)


def test_n10_no_orientation(tmp_path):
    (tmp_path / "s0007").write_bytes(nifti_bytes(qform_code=0, sform_code=0))
    refused(tmp_path / "s0007", "E_NO_ORIENTATION", "sform_code")
    refused(tmp_path / "s0007", "E_NO_ORIENTATION", read=read_label)


@pytest.mark.parametrize("axes", ["LAS", "RPI", "PIR"])
def test_n10_an_orientation_that_the_user_states(tmp_path, axes):
    """As nibabel names the axes; a file that has an orientation keeps its own."""
    path = tmp_path / "s0007"
    path.write_bytes(nifti_bytes(qform_code=0, sform_code=0))
    found = read_volume(path, assume_orientation=axes)
    assert "".join(nib.aff2axcodes(found.affine)) == axes
    np.testing.assert_allclose(nib.affines.voxel_sizes(found.affine), nib.affines.voxel_sizes(AFFINE), rtol=1e-6)
    path.write_bytes(nifti_bytes())
    np.testing.assert_allclose(read_volume(path, assume_orientation=axes).affine, AFFINE, atol=1e-4)


@pytest.mark.parametrize("slope, intercept", [(0, 0), (np.nan, np.nan), (np.inf, 3), (0, -7)])
def test_n11_no_slope_means_no_scaling(tmp_path, slope, intercept):
    (tmp_path / "s0007").write_bytes(nifti_bytes(scl_slope=slope, scl_inter=intercept))
    volume = read_volume(tmp_path / "s0007")
    assert np.array_equal(volume.data, ct_phantom())
    assert volume.flags == (("SCALING_IGNORED",) if intercept in (3, -7) else ())


def test_n11_scaling(tmp_path):
    stored = (ct_phantom() + 1024).astype(np.uint16)
    (tmp_path / "s0007").write_bytes(nifti_bytes(stored, scl_slope=1, scl_inter=-1024))
    assert np.array_equal(read_volume(tmp_path / "s0007").data, ct_phantom())
    halves = (ct_phantom() // 2 + 512).astype(np.int16)
    (tmp_path / "s0007").write_bytes(nifti_bytes(halves, scl_slope=2, scl_inter=-1024))
    assert np.array_equal(read_volume(tmp_path / "s0007").data, ct_phantom() // 2 * 2)
    (tmp_path / "s0007").write_bytes(nifti_bytes((stored * 2).astype(np.int32), scl_slope=0.5, scl_inter=-1024))
    volume = read_volume(tmp_path / "s0007")
    assert volume.data.dtype == np.int16 and np.array_equal(volume.data, ct_phantom())
    (tmp_path / "s0007").write_bytes(nifti_bytes(stored, scl_slope=1, scl_inter=-1023.75))
    volume = read_volume(tmp_path / "s0007")
    assert volume.data.dtype == np.float32 and np.array_equal(volume.data, ct_phantom() + np.float32(0.25))
    floats = ct_phantom().astype(np.float32)
    for slope, intercept in ((0.5, 0), (1, 0.25)):
        (tmp_path / "s0007").write_bytes(
            nifti_bytes((floats - intercept) / slope, scl_slope=slope, scl_inter=intercept)
        )
        assert np.array_equal(read_volume(tmp_path / "s0007").data, ct_phantom())
    (tmp_path / "s0007").write_bytes(nifti_bytes(scl_slope=2, scl_inter=np.nan))
    refused(tmp_path / "s0007", "E_HEADER", "scl_inter")


def test_n11_scaling_that_leaves_int16_does_not_wrap(tmp_path):
    """20 000 * 2 is no int16: metal on an extended scale stays 40 000 HU."""
    stored = ct_phantom().astype(np.int16)
    stored[11, 10, 5] = 20_000
    (tmp_path / "s0007").write_bytes(nifti_bytes(stored, scl_slope=2, scl_inter=1000))
    with pytest.raises(CaseError):  # twice the HU are no HU, but the error must not come from a wrap
        read_volume(tmp_path / "s0007")
    big = ct_phantom().astype(np.int32)
    big[11, 10, 5] = 40_000
    (tmp_path / "s0007").write_bytes(nifti_bytes(big))
    volume = read_volume(tmp_path / "s0007")
    assert volume.data.dtype == np.float32 and volume.data[11, 10, 5] == 40_000


@pytest.mark.parametrize("pixdim", [[1, 2, 3, 0, 0, 0, 0, 0], [1, 7, 7, 7, 0, 0, 0, 0]])
def test_n12_the_affine_wins_over_pixdim(tmp_path, pixdim):
    (tmp_path / "s0007").write_bytes(nifti_bytes(pixdim=pixdim, qform_code=0))
    volume = read_volume(tmp_path / "s0007")
    assert np.array_equal(volume.affine, AFFINE) and volume.flags == ()


def test_n12_negative_pixdim_is_told(tmp_path):
    (tmp_path / "s0007").write_bytes(nifti_bytes(pixdim=[1, -2, 3, 2.5, 0, 0, 0, 0], qform_code=0))
    volume = read_volume(tmp_path / "s0007")
    assert np.array_equal(volume.affine, AFFINE) and volume.flags == ("QS_MISMATCH",)


def _affine(**entries):
    affine = AFFINE.copy()
    for name, value in entries.items():
        affine[int(name[1]), int(name[2])] = value
    return affine


@pytest.mark.parametrize(
    "affine, code",
    [
        (_affine(a22=0), "E_SPACING"),
        (_affine(a22=0.001), "E_SPACING"),
        (_affine(a22=45), "E_SPACING"),
        (_affine(a22=0, a12=3), "E_AFFINE_SINGULAR"),
        (_affine(a13=np.nan), "E_AFFINE_SINGULAR"),
        (_affine(a00=np.inf), "E_AFFINE_SINGULAR"),
        (_affine(a22=1), "E_EXTENT"),
    ],
)
def test_impossible_affines(tmp_path, affine, code):
    fields = {f"srow_{row}": affine[index] for index, row in enumerate("xyz")}
    (tmp_path / "s0007").write_bytes(nifti_bytes(**fields))
    refused(tmp_path / "s0007", code, "expected")


def test_extent_has_an_upper_end(tmp_path):
    tall = np.zeros((90, 3, 3), np.int16)
    (tmp_path / "s0007").write_bytes(nifti_bytes(tall, np.diag([29.0, 20, 20, 1])))
    refused(tmp_path / "s0007", "E_EXTENT", "2610", "2500", read=read_label)


@pytest.mark.parametrize("units, word", [(1, "metres"), (3, "micrometres"), (5, "unknown")])
def test_n13_units(tmp_path, units, word):
    (tmp_path / "s0007").write_bytes(nifti_bytes(xyzt_units=units))
    refused(tmp_path / "s0007", "E_UNITS", word)
    (tmp_path / "s0007").write_bytes(nifti_bytes(xyzt_units=0))
    assert read_volume(tmp_path / "s0007").flags == ()


def test_n14_dimensions(tmp_path):
    (tmp_path / "s0007").write_bytes(nifti_bytes(ct_phantom()[..., None, None]))
    assert np.array_equal(read_volume(tmp_path / "s0007").data, ct_phantom())
    (tmp_path / "s0007").write_bytes(nifti_bytes(np.stack([ct_phantom()] * 2, axis=-1)))
    refused(tmp_path / "s0007", "E_DIM", "24 x 20 x 16 x 2")
    (tmp_path / "s0007").write_bytes(nifti_bytes(ct_phantom()[..., 0]))
    refused(tmp_path / "s0007", "E_DIM")
    (tmp_path / "s0007").write_bytes(nifti_bytes(ct_phantom()[..., :1]))
    refused(tmp_path / "s0007", "E_DIM")


@pytest.mark.parametrize(
    "fields",
    [
        {"dim": [0, 24, 20, 16, 1, 1, 1, 1]},
        {"dim": [9, 24, 20, 16, 1, 1, 1, 1]},
        {"dim": [3, 24, -20, 16, 1, 1, 1, 1]},
        {"datatype": 77},
        {"vox_offset": -352},
        {"vox_offset": 100},
        {"vox_offset": np.nan},
        {"vox_offset": 1e9},
        {"sform_code": 0, "quatern_b": 3.0},
    ],
    ids=str,
)
def test_bad_header(tmp_path, fields):
    (tmp_path / "s0007").write_bytes(nifti_bytes(**fields))
    refused(tmp_path / "s0007", "E_HEADER")


def test_extension_is_skipped_and_offset_zero_means_the_usual(tmp_path):
    image = nib.Nifti1Image(ct_phantom(), AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", SENTINEL.encode() * 9))
    (tmp_path / "s0007").write_bytes(image.to_bytes())
    assert marks_in_world(read_volume(tmp_path / "s0007")) == MARKS_MM
    (tmp_path / "s0007").write_bytes(nifti_bytes(vox_offset=0))
    assert marks_in_world(read_volume(tmp_path / "s0007")) == MARKS_MM


@pytest.mark.parametrize("dtype", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]], ids=["complex", "rgb"])
def test_n16_dtypes_without_one_number_per_voxel(tmp_path, dtype):
    (tmp_path / "s0007").write_bytes(nifti_bytes(np.zeros(SHAPE, dtype)))
    refused(tmp_path / "s0007", "E_DTYPE", "expected integers or real numbers")
    refused(tmp_path / "s0007", "E_DTYPE", read=read_label)


@pytest.mark.parametrize("code", [1, 1536, 2048])
def test_n16_bits_and_extended_precision_are_no_ct(tmp_path, code):
    (tmp_path / "s0007").write_bytes(nifti_bytes(datatype=code))
    refused(tmp_path / "s0007", "E_DTYPE")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_n15_nonfinite_voxels(tmp_path, bad):
    ct = ct_phantom().astype(np.float32)
    ct[0, 1, 2] = ct[23, 19, 15] = bad
    (tmp_path / "s0007").write_bytes(nifti_bytes(ct))
    volume = read_volume(tmp_path / "s0007")
    assert volume.flags == ("NONFINITE_FIXED",)
    assert volume.data[0, 1, 2] == volume.data[23, 19, 15] == -1024 and marks_in_world(volume) == MARKS_MM
    ct[:8, 0, 0] = bad  # 10 of 7680 voxels are 0.13 %
    (tmp_path / "s0007").write_bytes(nifti_bytes(ct))
    refused(tmp_path / "s0007", "E_NONFINITE", "0.13%")


def test_n17_constant(tmp_path):
    (tmp_path / "s0007").write_bytes(nifti_bytes(np.full(SHAPE, -1000, np.int16)))
    refused(tmp_path / "s0007", "E_CONSTANT", "-1000")


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda hu: np.rint((hu.clip(-1000, 1000) + 1000) / 2000 * 255).astype(np.uint8), "-50 HU"),
        (lambda hu: hu.astype(np.float32) / 1000, "-50 HU"),
        (lambda hu: hu + 1100, "-50 HU"),
        (lambda hu: np.where(np.arange(24)[:, None, None] < 3, -976, hu + 1024), "1050"),
        (lambda hu: hu.astype(np.int32) + 32768, "-50 HU"),
        (lambda hu: hu - 1024, "-1500"),
        (lambda hu: np.where(hu < -900, -2048, hu - 1024), "between -200 and 300"),
        (lambda hu: hu.astype(np.float32) * 10, "-1500"),
        (lambda hu: hu.clip(-160, 240), "display window"),
        (lambda hu: np.where(hu < -900, -1000, hu * 99), "-1500"),
        (lambda hu: np.where(np.arange(24)[:, None, None] < 3, 5000, hu), "3100"),
    ],
)
def test_n17_numbers_that_are_not_hounsfield_units(tmp_path, change, word):
    changed = change(ct_phantom())
    (tmp_path / "s0007").write_bytes(nifti_bytes(changed.astype(np.int16) if changed.dtype == np.int64 else changed))
    refused(tmp_path / "s0007", "E_HU_RANGE", word, "median")


@pytest.mark.parametrize("padding", [-1024, -2000, -3024])
def test_n18_padding_is_no_reason_to_refuse(tmp_path, padding):
    ct = ct_phantom()
    ct[:, :5] = np.where(ct[:, :5] < -900, padding, ct[:, :5])
    (tmp_path / "s0007").write_bytes(nifti_bytes(ct))
    assert np.array_equal(read_volume(tmp_path / "s0007").data, ct)


def test_a_crop_without_air_and_a_crop_with_much_bone_are_valid(tmp_path):
    ct = ct_phantom()[3:22, 2:17, 1:14]
    (tmp_path / "s0007").write_bytes(nifti_bytes(np.ascontiguousarray(ct)))
    assert read_volume(tmp_path / "s0007").data.min() > -200
    skull = ct.copy()
    skull[:9, :, 2:] = np.random.default_rng(5).normal(700, 250, skull[:9, :, 2:].shape)
    (tmp_path / "s0007").write_bytes(nifti_bytes(skull))
    assert read_volume(tmp_path / "s0007").flags == ("TRUNC_FOV",)


def test_metal(tmp_path):
    ct = ct_phantom()
    ct[10, 10, 4:7] = 3000  # 3 of 7680 voxels are 0.04 %
    (tmp_path / "s0007").write_bytes(nifti_bytes(ct))
    assert read_volume(tmp_path / "s0007").flags == ()
    ct[10, 10, 7] = 3071
    (tmp_path / "s0007").write_bytes(nifti_bytes(ct))
    assert read_volume(tmp_path / "s0007").flags == ("METAL",) and "METAL" in FLAG_BITS


def test_labels(tmp_path):
    ids = np.zeros(SHAPE, np.uint8)
    ids[5, 3, 2], ids[7, 5, 12] = 117, 3
    for values in (ids, ids.astype(np.float64), (ids > 0).astype(np.int64), np.zeros(SHAPE, np.int8)):
        (tmp_path / "s0008").write_bytes(nifti_bytes(values))
        label = read_label(tmp_path / "s0008")
        assert label.data.dtype == np.int16 and np.array_equal(label.data, values)
        assert np.array_equal(label.affine, AFFINE) and label.subject is None


@pytest.mark.parametrize("value", [0.5, -1, 32768, np.nan, np.inf])
def test_n19_labels_that_are_no_ids(tmp_path, value):
    ids = np.zeros(SHAPE, np.float32)
    ids[5, 3, 2] = value
    (tmp_path / "s0008").write_bytes(nifti_bytes(ids))
    refused(tmp_path / "s0008", "E_LABEL_VALUES", "32767", read=read_label)


def test_a_small_label_box_is_kept_on_its_own_affine(tmp_path):
    box = np.ones((3, 4, 2), np.uint8)
    moved = AFFINE.copy()
    moved[:3, 3] = [-24, 30, 410]
    (tmp_path / "s0008").write_bytes(nifti_bytes(box, moved))
    assert np.array_equal(read_label(tmp_path / "s0008").affine, moved)


def test_label_folder_and_truncated_label(tmp_path):
    refused(tmp_path, "E_NOT_NIFTI", read=read_label)
    (tmp_path / "s0008").write_bytes(gzip.compress(nifti_bytes())[:-9])
    refused(tmp_path / "s0008", "E_GZIP_TRUNCATED", read=read_label)


def test_a_disk_fault_is_not_the_case_s_fault(tmp_path, monkeypatch):
    (tmp_path / "s0007").write_bytes(nifti_bytes())

    def broken(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pathlib.Path.open", broken)
    with pytest.raises(OSError, match="Input/output"):
        read_volume(tmp_path / "s0007")


def test_any_header_damage_ends_in_a_reason_or_a_volume(tmp_path):
    """400 random bytes of the header fields that matter: nothing but CaseError comes out."""
    good = nifti_bytes()
    rng = np.random.default_rng(7)
    used = [*range(4), *range(40, 56), *range(70, 74), *range(76, 124), *range(252, 352)]
    read, codes = 0, set()
    for place, value in zip(rng.choice(used, 400), rng.integers(0, 256, 400), strict=True):
        damaged = bytearray(good)
        damaged[place] = value
        (tmp_path / "s0007").write_bytes(damaged)
        try:
            read += read_volume(tmp_path / "s0007").data.shape == SHAPE
        except CaseError as error:
            codes.add(error.code)
    assert read > 100 and len(codes) >= 5
