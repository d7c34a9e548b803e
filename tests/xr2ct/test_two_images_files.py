"""Image files of every kind are read as they mean it, and hostile ones are refused in words."""

import io

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from xr2ct.errors import UserError
from xr2ct.image_files import Picture, read_picture
from xr2ct.intensities import (
    as_brightness,
    as_line_integral,
    choose_intensity,
    from_transmission,
    match_training,
)

ROWS, COLUMNS = np.indices((9, 11))
RAMP = (ROWS * 20 + COLUMNS * 3).astype(np.uint8)  # no two pixels in reach of a flip are equal

NOISE = np.random.default_rng(0).integers(0, 256, (9, 11), np.uint8)


def write_dicom(path, pixels=RAMP, **tags):
    """A radiograph as small as it can be."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_image(path, array=RAMP):
    Image.fromarray(array).save(path)
    return path


def write_npy(path, array=RAMP):
    np.save(path, array)
    return path


def write_nifti(path, array=RAMP, slope=None):
    image = nib.Nifti1Image(array.T, np.diag([-2.0, -2, 1, 1]))
    if slope:
        image.header.set_slope_inter(slope, 0)
    image.to_filename(path)
    return path


WRITERS = {
    "PNG": (write_image, "x.png"),
    "TIFF": (write_image, "x.tif"),
    "DICOM": (write_dicom, "x.dcm"),
    "NIfTI": (write_nifti, "x.nii.gz"),
    "NPY": (write_npy, "x.npy"),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("type_", [np.uint8, np.uint16])
def test_rows_run_down_and_columns_right_in_every_format(kind, type_, tmp_path):
    write, name = WRITERS[kind]
    array = RAMP.astype(type_) * (200 if type_ is np.uint16 else 1)
    picture = read_picture(write(tmp_path / name, array))
    assert np.array_equal(picture.values, array)
    assert (picture.kind, picture.whole_numbers) == (kind, True)
    assert choose_intensity(picture) == "display"


def test_the_content_decides_not_the_name(tmp_path):
    write_npy(tmp_path / "x.npy").rename(tmp_path / "x.png")
    assert read_picture(tmp_path / "x.png").kind == "NPY"


@pytest.mark.parametrize(("write", "name"), [(write_npy, "x.npy"), (write_nifti, "x.nii"), (write_image, "x.tif")])
def test_fractions_are_line_integrals(write, name, tmp_path):
    array = (RAMP / 100).astype(np.float32)
    picture = read_picture(write(tmp_path / name, array))
    assert np.array_equal(picture.values, array) and choose_intensity(picture) == "line-integral"


def test_a_grey_picture_saved_in_colour_is_grey(tmp_path):
    assert np.array_equal(read_picture(write_image(tmp_path / "x.png", np.stack([RAMP] * 3, -1))).values, RAMP)


def test_dicom_tags_are_followed(tmp_path):
    pixels = RAMP.astype(np.uint16) * 10
    path = write_dicom(
        tmp_path / "x.dcm",
        pixels,
        PhotometricInterpretation="MONOCHROME1",
        RescaleSlope="0.5",
        RescaleIntercept="-7",
        PixelIntensityRelationship="LIN",
        ViewPosition="PA",
        PatientOrientation=["L", "F"],
    )
    picture = read_picture(path)
    assert np.array_equal(picture.values, pixels * 0.5 - 7)
    assert (picture.low_is_white, picture.runs_to, picture.position) == (True, ("L", "I"), "PA")
    assert choose_intensity(picture) == "transmission"


def bytes_of(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("no.png", lambda path: None, "cannot be read .*PNG, JPEG, TIFF, DICOM, NIfTI or NPY"),
        ("x.txt", lambda path: path.write_text("hello"), "is no image that is known here; expected PNG"),
        ("x.npz", lambda path: path.write_bytes(bytes_of(a=RAMP)), "is no image that is known here"),
        ("cut.png", lambda path: path.write_bytes(write_image(path, NOISE).read_bytes()[:-40]), r"is damaged \(\w+\)"),
        ("cut.dcm", lambda path: path.write_bytes(write_dicom(path).read_bytes()[:-50]), r"is damaged \(\w+\)"),
        ("cut.nii.gz", lambda path: path.write_bytes(write_nifti(path).read_bytes()[:-9]), r"is damaged \(\w+\)"),
        ("cut.npy", lambda path: path.write_bytes(write_npy(path).read_bytes()[:-9]), r"is damaged \(\w+\)"),
        ("pickle.npy", lambda path: np.save(path, np.array([{}], object)), r"is damaged \(\w+\)"),
        ("colour.png", lambda path: write_image(path, np.stack([RAMP, RAMP, 0 * RAMP], -1)), "is a colour image"),
        ("veil.png", lambda path: write_image(path, np.stack([RAMP] * 4, -1)), "has transparent pixels"),
        ("ct.nii.gz", lambda path: write_nifti(path, np.ones((9, 9, 9), np.int16)), r"array of shape \(9, 9, 9\)"),
        ("line.npy", lambda path: write_npy(path, np.arange(9.0)), r"array of shape \(9,\)"),
        ("tiny.png", lambda path: write_image(path, RAMP[:4]), r"array of shape \(4, 11\)"),
        ("wave.npy", lambda path: write_npy(path, RAMP * 1j), "values of type complex128"),
        ("nan.npy", lambda path: write_npy(path, np.where(RAMP == 6, np.nan, 1.0 * RAMP)), "1 pixels are NaN or infinite"),
        ("black.png", lambda path: write_image(path, 0 * RAMP), "every pixel is 0; expected an X-ray"),
        ("rgb.dcm", lambda path: write_dicom(path, PhotometricInterpretation="RGB"), "Interpretation is 'RGB'"),
        ("film.dcm", lambda path: write_dicom(path, np.stack([RAMP] * 3), NumberOfFrames=3), "holds 3 frames"),
        ("film.tif", lambda path: Image.fromarray(RAMP).save(path, save_all=True, append_images=[Image.fromarray(RAMP)]),
         "holds 2 images"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value and " " not in value else "",
)  # fmt: skip
def test_what_is_not_one_grey_image_is_refused_in_words(name, make, said, tmp_path):
    make(tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: .*{said}"):
        read_picture(tmp_path / name)


def test_a_dicom_without_pixels_is_refused(tmp_path):
    path = write_dicom(tmp_path / "x.dcm")
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(UserError, match="DICOM file without pixels"):
        read_picture(path)


def test_transmission_becomes_a_line_integral():
    intensity = 5000 * np.exp(-(RAMP / 100))
    found, said = from_transmission(intensity, 5000.0, "PA")
    np.testing.assert_allclose(found, RAMP / 100, atol=1e-12)
    assert "I0 = 5000 (given)" in said
    intensity[:3] = 5000  # open field
    found, said = from_transmission(intensity, None, "PA")
    assert found[0, 0] == pytest.approx(0) and "99.5th percentile" in said
    intensity[8, 10] = 0  # a dead pixel is as dark as the darkest, not infinitely
    assert from_transmission(intensity, 5000.0, "PA")[0].max() == pytest.approx(RAMP.ravel()[-2] / 100)
    with pytest.raises(UserError, match="I0 of view PA is -1; expected the positive signal.*--i0"):
        from_transmission(intensity, -1.0, "PA")
    with pytest.raises(UserError, match="I0 of view PA is 0"):
        from_transmission(np.minimum(intensity, 0), None, "PA")


def test_pixel_values_of_a_picture_are_no_line_integrals():
    assert np.array_equal(as_line_integral(RAMP / 20.0, "PA")[0], RAMP / 20.0)
    with pytest.raises(UserError, match="view LAT reaches from 0 to 190; expected line integrals.*--intensity"):
        as_line_integral(RAMP.astype(float), "LAT")


@pytest.mark.parametrize(("low_is_white", "inverted", "sign"), [(0, 0, 1), (1, 0, -1), (0, 1, -1), (1, 1, 1)])
def test_bone_becomes_bright(low_is_white, inverted, sign):
    picture = Picture(RAMP.astype(float), "DICOM", low_is_white=bool(low_is_white))
    assert np.array_equal(as_brightness(picture, bool(inverted)), sign * RAMP.astype(float))


def test_a_display_image_gets_mean_and_sd_of_the_training_where_it_is_seen():
    seen = np.ones(RAMP.shape, bool)
    seen[:, 0] = False
    found = match_training(RAMP / 7.0 - 3, seen, 2.5, 1.5)
    assert (found[seen].mean(), found[seen].std()) == (pytest.approx(2.5), pytest.approx(1.5))
    assert not found[~seen].any() and np.corrcoef(found[seen], RAMP[seen])[0, 1] == pytest.approx(1)


def test_a_display_image_that_is_constant_where_it_is_seen_is_refused():
    image = np.where(COLUMNS == 0, 9.0, 4.0)
    with pytest.raises(UserError, match="constant where the volume appears"):
        match_training(image, COLUMNS > 0, 2.5, 1.5)
