"""DICOM: the case list C1 to C15, on a synthetic series of 16 slices of 24 x 20 pixels with a secret patient name."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    RLELossless,
)

from pipeline.errors import CaseError
from pipeline.read import read_volume
from pipeline.read.dicom_series import HEADER_TAGS, PIXEL_TAGS
from tests.pipeline.jpeg_lossless import encode
from tests.pipeline.read_cases import AFFINE, MARKS_MM, SENTINEL, ct_phantom, marks_in_world, refused

SERIES, OTHER_SERIES = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"
LARGE = ct_phantom().repeat(2, axis=0).repeat(2, axis=1)
"""48 x 40 pixels: OpenJPEG's encoder refuses images below 32."""
LPS = np.diag([-1.0, -1, 1, 1])
LONG = ct_phantom().repeat(2, axis=2)
FINE = AFFINE @ np.diag([1.0, 1, 0.5, 1])
"""32 slices on half the distance."""


def image(number: int, pixels: np.ndarray, affine: np.ndarray, *, series=SERIES) -> pydicom.Dataset:
    """One CT image at `affine` @ (column, row, number, 1) RAS mm; `pixels` are HU (row, column)."""
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3], axis=0)
    one = pydicom.Dataset()
    one.file_meta = pydicom.dataset.FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = f"{series}.{number + 1}"
    one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    one.Modality, one.SeriesInstanceUID, one.InstanceNumber = "CT", series, number + 1
    one.PatientID = one.PatientName = one.StudyDescription = one.SeriesDescription = one.InstitutionName = SENTINEL
    one.PatientComments = one.ImageComments = one.AccessionNumber = SENTINEL
    one.SliceThickness = 5.0
    one.ImagePositionPatient = [round(float(value), 4) for value in lps[:3] @ [0, 0, number, 1]]
    one.ImageOrientationPatient = [*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])]
    one.PixelSpacing = [float(spacing[1]), float(spacing[0])]
    one.Rows, one.Columns = pixels.shape
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    store(one, pixels)
    return one


def store(one: pydicom.Dataset, hu: np.ndarray, *, dtype="u2", intercept=-1024, slope=1) -> None:
    """Write HU as stored values of `dtype` with the rescale that undoes it."""
    stored = np.rint((hu.astype(float) - intercept) / slope).astype(f"<{dtype}")
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit, one.PixelRepresentation = 15, int(dtype[0] == "i")
    one.RescaleIntercept, one.RescaleSlope = intercept, slope
    one.PixelData = stored.tobytes()


def series(data=None, affine=AFFINE, **options) -> list[pydicom.Dataset]:
    data = ct_phantom() if data is None else data
    return [image(k, data[:, :, k].T, affine, **options) for k in range(data.shape[2])]


def save(folder: Path, images: list[pydicom.Dataset], prefix: str = "im") -> Path:
    """Files whose names tell nothing of the order."""
    folder.mkdir(exist_ok=True)
    for one, name in zip(images, np.random.default_rng(4).permutation(len(images)), strict=True):
        one.save_as(folder / f"{prefix}{name:03d}", enforce_file_format=True)
    return folder


def test_good_series(tmp_path):
    volume = read_volume(save(tmp_path, series()))
    assert volume.data.dtype == np.int16 and np.array_equal(volume.data, ct_phantom())
    assert np.allclose(volume.affine, AFFINE, atol=1e-9) and marks_in_world(volume) == MARKS_MM
    assert volume.flags == () and volume.subject == SENTINEL and SENTINEL not in repr(volume)
    assert len(volume.source_sha256) == 64


def test_c15_every_position_of_the_patient_shows_the_same_patient(tmp_path):
    """Supine, prone, feet first, decubitus, sagittal and coronal slices: 48 ways to lay out the same voxels."""
    source = nib.Nifti1Image(ct_phantom(), AFFINE)
    for axes in itertools.permutations(range(3)):
        for number, flips in enumerate(itertools.product([1, -1], repeat=3)):
            turned = source.as_reoriented(np.array(list(zip(axes, flips, strict=True))))
            folder = save(tmp_path / f"{axes}{number}", series(np.asarray(turned.dataobj), turned.affine))
            volume = read_volume(folder)
            assert marks_in_world(volume) == MARKS_MM and volume.flags == ()
            shutil.rmtree(folder)


def test_c11_names_numbers_and_neighbours_do_not_matter(tmp_path):
    plain = read_volume(save(tmp_path / "plain", series()))
    images = series()
    for one in images:
        one.InstanceNumber = 100 - one.InstanceNumber
    folder = save(tmp_path / "odd", images[:9], "z")
    save(folder / "sub folder", images[9:], "a")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"junk")
    (folder / "notes.txt").write_text("not an image")
    (folder / "empty").touch()
    report = series()[0]
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.save_as(folder / "report", enforce_file_format=True)
    odd = read_volume(folder)
    assert np.array_equal(odd.data, plain.data) and np.array_equal(odd.affine, plain.affine)
    renamed = save(tmp_path / "renamed", series(), "x")
    assert read_volume(renamed).source_sha256 == plain.source_sha256 != odd.source_sha256


def test_c01_missing_slice(tmp_path):
    images = series()
    refused(save(tmp_path / "s0007", images[:6] + images[7:]), "E_DICOM_GAP", "2.500 to 5.000 mm", "missing")
    volume = read_volume(save(tmp_path / "s0008", images[1:]))
    assert volume.data.shape == (24, 20, 15) and marks_in_world(volume) == MARKS_MM


@pytest.mark.parametrize("moved_mm, ok", [(0.0, True), (0.01, True), (0.06, False), (1.0, False), (-1.0, False)])
def test_c02_uneven_spacing(tmp_path, moved_mm, ok):
    images = series()
    images[5].ImagePositionPatient[2] += moved_mm
    folder = save(tmp_path / "s0007", images)
    if ok:
        assert marks_in_world(read_volume(folder)) == MARKS_MM
    else:
        refused(folder, "E_DICOM_GAP")


def rounded(images: list[pydicom.Dataset], decimals: int = 1) -> list[pydicom.Dataset]:
    for one in images:
        one.ImagePositionPatient = [round(float(value), decimals) for value in one.ImagePositionPatient]
    return images


@pytest.mark.parametrize("spacing_mm", [0.625, 0.75, 1.25, 0.3333, 2.46])
def test_c02_positions_printed_with_one_decimal(tmp_path, spacing_mm):
    """The steps of 0.625 mm become 0.6 and 0.7: evenly spaced all the same, and the spacing is that of the whole."""
    affine = AFFINE @ np.diag([1.0, 1, spacing_mm / 2.5, 1])
    volume = read_volume(save(tmp_path, rounded(series(ct_phantom().repeat(8, axis=2), affine))))
    count = volume.data.shape[2]
    assert count == 128 and volume.flags == ()
    assert volume.affine[2, 2] == pytest.approx(spacing_mm, abs=0.1 / (count - 1) + 1e-9)
    assert np.abs(volume.affine - affine)[:3, 3].max() <= 0.05 + 1e-9


def test_c02_oblique_positions_printed_with_one_decimal(tmp_path):
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]]
    affine = turn @ AFFINE @ np.diag([1.0, 1, 0.25, 1])
    volume = read_volume(save(tmp_path, rounded(series(ct_phantom().repeat(4, axis=2), affine))))
    assert volume.flags == () and np.abs(volume.affine - affine)[:3, :3].max() < 0.003


@pytest.mark.parametrize("missing", [1, 3, 7, 14, 30])
@pytest.mark.parametrize("spacing_mm", [0.2, 0.25, 0.625, 2.46])
def test_c01_a_missing_slice_is_no_rounding(tmp_path, spacing_mm, missing):
    images = rounded(series(LONG.repeat(6, axis=2)[:, :, :32], AFFINE @ np.diag([1.0, 1, spacing_mm / 2.5, 1])))
    refused(save(tmp_path / "s0007", images[:missing] + images[missing + 1 :]), "E_DICOM_GAP", "missing")


def test_c02_a_slice_off_by_more_than_rounding_is_told(tmp_path):
    for moved_mm, decimals in ((0.2, 1), (0.04, 2), (-0.2, 1)):
        images = rounded(series(LONG, AFFINE @ np.diag([1.0, 1, 0.25, 1])), decimals)
        images[9].ImagePositionPatient[2] = round(float(images[9].ImagePositionPatient[2]) + moved_mm, 2)
        refused(save(tmp_path / f"s{moved_mm}", images), "E_DICOM_GAP")
        shutil.rmtree(tmp_path / f"s{moved_mm}")


def test_c02_spacing_that_grows_from_slice_to_slice(tmp_path):
    images = series()
    for k, one in enumerate(images):
        one.ImagePositionPatient[2] = 400 + 2.5 * k + 0.05 * k**2
    refused(save(tmp_path / "s0007", images), "E_DICOM_GAP")


def test_a_slice_beside_the_line(tmp_path):
    images = series()
    images[8].ImagePositionPatient[0] += 0.5
    refused(save(tmp_path / "s0007", images), "E_DICOM_GAP", "straight line")


def test_c03_gantry_tilt_is_shear(tmp_path):
    """The table moves along z while the slices lean by 15 degrees: slice axis and normal part."""
    lean = np.deg2rad(15)
    tilted = AFFINE.copy()
    tilted[:3, 1] = 3.0 * np.array([0, np.cos(lean), np.sin(lean)])
    volume = read_volume(save(tmp_path, series(affine=tilted)))
    assert volume.flags == ("SHEARED",) and np.allclose(volume.affine, tilted, atol=1e-3)


def test_c10_slice_thickness_is_not_the_spacing(tmp_path):
    images = series()
    for one in images:
        one.SliceThickness, one.SpacingBetweenSlices, one.SliceLocation = 1.0, 7.0, 3.0
    assert np.allclose(read_volume(save(tmp_path, images)).affine, AFFINE)


def test_c04_duplicates(tmp_path):
    images = series()
    twin = image(6, ct_phantom()[:, :, 6].T, AFFINE)
    twin.InstanceNumber, twin.SOPInstanceUID = 99, f"{SERIES}.99"
    volume = read_volume(save(tmp_path / "same", [*images, twin]))
    assert np.array_equal(volume.data, ct_phantom()) and np.allclose(volume.affine, AFFINE)
    assert volume.flags == ("SLICES_LEFT_OUT",)
    store(twin, ct_phantom()[:, :, 6].T + 1)
    refused(save(tmp_path / "s0007", [*images, twin]), "E_DICOM_DUPLICATE", "99", "7")


def test_c05_mixed_rescale_is_per_slice_and_never_wraps(tmp_path):
    images = series()
    for k, one in enumerate(images):
        hu = ct_phantom()[:, :, k].T
        if k % 3 == 1:
            store(one, hu, intercept=-8192)
        if k % 3 == 2:
            store(one, hu, dtype="i2", intercept=0)
    volume = read_volume(save(tmp_path / "whole", images))
    assert volume.data.dtype == np.int16 and np.array_equal(volume.data, ct_phantom())
    store(images[4], ct_phantom()[:, :, 4].T, dtype="i2", intercept=0.25, slope=0.5)
    volume = read_volume(save(tmp_path / "fraction", images))
    assert volume.data.dtype == np.float32 and abs(volume.data - ct_phantom()).max() == 0.25


@pytest.mark.parametrize("kinds", [("u2", "u2"), ("i2", "i2"), ("u2", "i2"), ("i2", "u2")], ids="-".join)
def test_c13_signed_and_unsigned_pixels_are_the_same_hu(tmp_path, kinds):
    """279 series of NLST change PixelRepresentation on the way: stacked before the rescale, one half of them wraps."""
    images = series()
    for k, one in enumerate(images):
        dtype = kinds[k % 2]
        store(one, ct_phantom()[:, :, k].T, dtype=dtype, intercept=0 if dtype == "i2" else -1024)
    volume = read_volume(save(tmp_path, images))
    assert volume.data.dtype == np.int16 and np.array_equal(volume.data, ct_phantom())


@pytest.mark.parametrize("missing", ["RescaleSlope", "RescaleIntercept"])
def test_c06_no_rescale(tmp_path, missing):
    images = series()
    del images[3][missing]
    refused(save(tmp_path / "s0007", images), "E_DICOM_RESCALE", "number 4")


def test_rescale_slope_of_zero(tmp_path):
    images = series()
    images[3].RescaleSlope = 0
    refused(save(tmp_path / "s0007", images), "E_DICOM_RESCALE")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("dtype, value", [("i2", -2000), ("i2", 63536), ("u2", -2000), ("u2", 63536)])
def test_padding_is_found_before_the_rescale(tmp_path, syntax, dtype, value):
    """-2000 in 16 bits is 63536, and writers mix the two up."""
    images = series()
    for k, one in enumerate(images):
        one.file_meta.TransferSyntaxUID = syntax
        store(one, ct_phantom()[:, :, k].T, dtype=dtype, intercept=-1024)
        pixels = np.frombuffer(one.PixelData, f"<{dtype}").copy()
        pixels[:3] = np.array(63536, np.uint16).astype(f"<{dtype}")
        one.PixelData = pixels.tobytes()
        one.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
    volume = read_volume(save(tmp_path, images))
    expected = ct_phantom()
    expected[:3, 0] = -1024
    assert np.array_equal(volume.data, expected)


def test_padding_range(tmp_path):
    images = series()
    for one in images:
        one.add_new("PixelPaddingValue", "US", 0)
        one.add_new("PixelPaddingRangeLimit", "US", 12)  # -1024 to -1012 HU
    expected = ct_phantom()
    assert (expected <= -1012).sum() > 50
    expected[expected <= -1012] = -1024
    assert np.array_equal(read_volume(save(tmp_path, images)).data, expected)


def test_c07_localizers_are_passed_over(tmp_path):
    images = series()
    scout = image(40, np.zeros((60, 50)), AFFINE[[0, 2, 1, 3]])
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    lying = image(41, ct_phantom()[:, :, 5].T, AFFINE)
    lying.ImageType = ["DERIVED", "SECONDARY", "MIP"]
    volume = read_volume(save(tmp_path, [*images, scout, lying]))
    assert np.array_equal(volume.data, ct_phantom()) and volume.flags == ()


@pytest.mark.parametrize("word", ["LOCALIZER", "MIP", "MINIP"])
def test_c07_a_whole_stack_of_projections_is_no_second_series(tmp_path, word):
    images = series() + series(-ct_phantom())
    for one in images[16:]:
        one.ImageType = ["DERIVED", "SECONDARY", word]
    assert np.array_equal(read_volume(save(tmp_path, images)).data, ct_phantom())


@pytest.mark.parametrize("count", [1, 7, 8, 14])
def test_c07_a_shorter_series_is_passed_over_and_told(tmp_path, count):
    folder = save(tmp_path, series(LONG, FINE))
    save(folder, series(LONG[:, :, :count], FINE, series=OTHER_SERIES), "other")
    volume = read_volume(folder)
    assert volume.data.shape == LONG.shape and volume.flags == ("SLICES_LEFT_OUT",)


@pytest.mark.parametrize(("whose", "count", "ok"), [("another", 14, False), (None, 14, False), ("another", 7, True)])
def test_c09_a_series_of_another_patient_is_never_passed_over(tmp_path, whose, count, ok):
    """Seven slices are no CT, whoever they are of: they are only told."""
    shorter = series(LONG[:, :, :count], FINE, series=OTHER_SERIES)
    for one in shorter:
        if whose:
            one.PatientID = whose
        else:
            del one.PatientID
    save(tmp_path / "s0007", series(LONG, FINE))
    save(tmp_path / "s0007", shorter, "other")
    if ok:
        assert read_volume(tmp_path / "s0007").flags == ("SLICES_LEFT_OUT",)
    else:
        refused(tmp_path / "s0007", "E_DICOM_MIXED", "same patient")


def test_c09_a_scout_of_another_patient_is_passed_over(tmp_path):
    scouts = series(series=OTHER_SERIES)
    for one in scouts:
        one.PatientID, one.ImageType = "another", ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    save(tmp_path / "s0007", series())
    assert read_volume(save(tmp_path / "s0007", scouts, "other")).flags == ()


def test_c09_two_series_need_a_choice(tmp_path):
    save(tmp_path / "s0007", series())
    save(tmp_path / "s0007", series(series=OTHER_SERIES)[:9], "b")
    refused(tmp_path / "s0007", "E_DICOM_MIXED", "16 and 9")


def test_two_kinds_of_image_in_one_series_need_a_choice(tmp_path):
    images = series() + series()
    for one in images[16:]:
        one.ImageType = ["DERIVED", "PRIMARY", "AXIAL", "IODINE"]
    refused(save(tmp_path / "s0007", images), "E_DICOM_MIXED")


def test_two_patients_in_one_series(tmp_path):
    images = series()
    images[2].PatientID = "another"
    refused(save(tmp_path / "s0007", images), "E_DICOM_MIXED", "patient")
    for one in images:
        del one.PatientID
    assert read_volume(save(tmp_path / "s0008", images)).subject is None


@pytest.mark.parametrize("change", ["orientation", "spacing", "rows"])
def test_slices_that_do_not_fit_are_no_part(tmp_path, change):
    images = series()
    if change == "orientation":
        images[15].ImageOrientationPatient = [-1, 0, 0, 0, -0.9, 0.4358899]
    elif change == "spacing":
        images[15].PixelSpacing = [3.1, 2]
    else:
        images[15].Rows, images[15].PixelData = 10, images[15].PixelData[:480]
    volume = read_volume(save(tmp_path, images))
    assert volume.data.shape == (24, 20, 15) and volume.flags == ("SLICES_LEFT_OUT",)


@pytest.mark.parametrize("count", [0, 3, 7])
def test_c14_few_slices(tmp_path, count):
    refused(save(tmp_path / "s0007", series()[:count]), "E_DICOM_FEW_SLICES", f"found {count}", "8")


def test_a_folder_without_dicom_says_what_to_name_instead(tmp_path):
    (tmp_path / "s0007").mkdir()
    (tmp_path / "s0007/ct.nrrd").write_bytes(b"NRRD0004")
    refused(tmp_path / "s0007", "E_DICOM_FEW_SLICES", "found 0", "give that file", "not its folder")


def test_c08_truncated_files(tmp_path):
    folder = save(tmp_path / "s0007", series())
    path = next(path for path in folder.iterdir() if pydicom.dcmread(path).InstanceNumber == 12)
    content = path.read_bytes()
    path.write_bytes(content[:-300])
    refused(folder, "E_DICOM_CODEC", "number 12", "pip install pylibjpeg")
    path.write_bytes(content[: content.index(b"ORIGINAL") + 4])
    refused(folder, "E_DICOM_CODEC", "damaged")
    path.write_bytes(content[:200])
    with pytest.raises(CaseError):
        read_volume(folder)


@pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_ct_image_without_geometry(tmp_path, tag):
    images = series()
    del images[5][tag]
    refused(save(tmp_path / "s0007", images), "E_DICOM_CODEC", "lacks")


def test_orientation_that_is_none(tmp_path):
    images = series()
    for one in images:
        one.ImageOrientationPatient = [1, 0, 0, 0.5, 0.5, 0]
    refused(save(tmp_path / "s0007", images), "E_HEADER", "perpendicular")


def test_multi_frame(tmp_path):
    images = series()
    images[0].SOPClassUID = images[0].file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    refused(save(tmp_path / "s0007", images), "E_DIM", "multi-frame")


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless], ids=["JPEG 2000", "RLE"])
def test_c12_compressed(tmp_path, syntax):
    images = series(LARGE)
    for one in images:
        one.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(read_volume(save(tmp_path, images)).data, LARGE)


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1], ids=["process 14", "first-order"])
def test_c12_jpeg_lossless(tmp_path, syntax):
    images = series()
    for one in images:
        pixels = np.frombuffer(one.PixelData, "<u2").reshape(one.Rows, one.Columns)
        one.PixelData = pydicom.encaps.encapsulate([encode(pixels)])
        one["PixelData"].is_undefined_length = True
        one.file_meta.TransferSyntaxUID = syntax
    assert np.array_equal(read_volume(save(tmp_path, images)).data, ct_phantom())


def test_c12_missing_codec(tmp_path, monkeypatch):
    images = series(LARGE)
    for one in images:
        one.compress(JPEG2000Lossless, generate_instance_uid=False)
    monkeypatch.setattr(pydicom.pixels.decoders.JPEG2000LosslessDecoder, "_available", {})
    refused(save(tmp_path / "s0007", images), "E_DICOM_CODEC", "pip install pylibjpeg pylibjpeg-libjpeg")


def test_s01_only_the_listed_tags_are_read_and_none_is_shown(tmp_path, monkeypatch, capfd, caplog, recwarn):
    """Invalid UIDs and names make pydicom warn with their value: nothing of that may come out."""
    images = series()
    for one in images:
        with pytest.warns(UserWarning):
            one.SeriesInstanceUID = f"not a uid {SENTINEL}"
    folder = save(tmp_path / "s0007", images)
    with pytest.warns(UserWarning, match=SENTINEL.replace("^", ".")):
        _ = pydicom.dcmread(folder / "im000").SeriesInstanceUID
    recwarn.clear()
    caplog.clear()
    seen, read = set(), pydicom.dcmread

    def spy(*arguments, **options):
        dataset = read(*arguments, **options)
        seen.update(element.keyword for element in dataset)
        return dataset

    monkeypatch.setattr(pydicom, "dcmread", spy)
    assert np.array_equal(read_volume(folder).data, ct_phantom())
    assert seen <= {*HEADER_TAGS, *PIXEL_TAGS}
    assert not seen & {"PatientName", "StudyDescription", "SeriesDescription", "ImageComments", "InstitutionName"}
    assert not recwarn.list and not caplog.records and capfd.readouterr() == ("", "")


def test_any_damage_ends_in_a_reason_or_a_volume(tmp_path):
    folder = save(tmp_path / "s0007", series()[:13])
    path = folder / "im004"
    good = path.read_bytes()
    rng = np.random.default_rng(13)
    read, codes = 0, set()
    for place, value in zip(rng.integers(132, len(good) - 960, 120), rng.integers(0, 256, 120), strict=True):
        damaged = bytearray(good)
        damaged[place] = value
        path.write_bytes(damaged)
        try:
            read += read_volume(folder).data.shape == (24, 20, 13)
        except CaseError as error:
            codes.add(error.code)
            assert SENTINEL not in str(error)
    assert read > 30 and len(codes) >= 3
