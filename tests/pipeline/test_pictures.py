"""Picture files: read back by other libraries, upright, with spacing, without a patient."""

import numpy as np
import pydicom
import pytest
from PIL import Image

from pipeline.geometry import make_view
from pipeline.pictures import save_dicom, save_png, write_pictures
from pipeline.shard_file import Xray


@pytest.fixture
def xray():
    """Two views of 20 x 30 pixels of 0.5 mm: bright top left in the first, a ramp in the second."""
    views = [
        make_view(
            name,
            np.array([10.0, -20.0, 300.0]),
            beam="cone",
            detector_px=(20, 30),
            pixel_mm=0.5,
            sdd_mm=900.0,
            sod_mm=700.0,
        )
        for name in ("PA", "LAT")
    ]
    image = np.zeros((2, 20, 30), np.float32)
    image[0, :4, :5] = 3.0
    image[1] = np.linspace(-0.5, 7.0, 30)
    return Xray(
        views=("PA", "LAT"),
        image=image,
        projection=np.stack([view.projection() for view in views]),
        source_mm=np.stack([view.source_mm for view in views]),
        detector_mm=np.stack([view.detector_mm() for view in views]),
        attributes={"beam": "cone", "sdd_mm": 900.0, "sod_mm": 700.0, "spectrum": "90KV_AL40"},
    )


def test_a_png_is_upright_and_eight_bit(tmp_path, xray):
    written = write_pictures(tmp_path / "xr.h5", xray, png=True, dicom=False, limits=(0.0, 6.0))
    assert [path.name for path in written] == ["xr_PA.png", "xr_LAT.png"]
    picture = Image.open(written[0])
    pixels = np.asarray(picture)
    assert picture.mode == "L" and pixels.shape == (20, 30)
    assert pixels[0, 0] == 128 and pixels[19, 0] == 0 and pixels[0, 29] == 0  # 3 of 0..6 is half of 255
    assert np.asarray(Image.open(written[1]))[7, 0] == 0


def test_without_limits_each_view_gets_its_percentiles(tmp_path, xray):
    written = write_pictures(tmp_path / "xr.h5", xray, png=True, dicom=False)
    ramp = np.asarray(Image.open(written[1]))
    assert ramp[0, 0] == 0 and ramp[0, 29] == 255 and (np.diff(ramp[3].astype(int)) >= 0).all()
    equalised = write_pictures(tmp_path / "eq.h5", xray, png=True, dicom=False, local_contrast=True)
    assert (np.asarray(Image.open(equalised[1])) != ramp).any()


def test_a_dicom_gives_back_line_integrals_spacing_and_window(tmp_path, xray):
    xray.detector_mm[1, 2] *= 3  # as if its columns lay 1.5 mm apart
    write_pictures(tmp_path / "xr.h5", xray, png=False, dicom=True, limits=(0.5, 4.5))
    file = pydicom.dcmread(tmp_path / "xr_LAT.dcm")
    values = file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)
    np.testing.assert_allclose(values, xray.image[1], atol=1.01e-4)
    assert file.PhotometricInterpretation == "MONOCHROME2" and file.pixel_array.shape == (20, 30)
    assert [float(value) for value in file.ImagerPixelSpacing] == [0.5, 1.5]
    assert (float(file.WindowCenter), float(file.WindowWidth)) == (2.5, 4.0)
    assert (file.Modality, file.ViewPosition, float(file.KVP)) == ("CR", "LL", 90.0)
    assert (float(file.DistanceSourceToDetector), float(file.DistanceSourceToPatient)) == (900.0, 700.0)
    assert list(file.PatientOrientation) == ["P", "F"]
    assert list(pydicom.dcmread(tmp_path / "xr_PA.dcm").PatientOrientation) == ["L", "F"]


def test_a_dicom_holds_no_patient_no_time_and_is_the_same_bytes_again(tmp_path, xray):
    save_dicom(tmp_path / "one.dcm", xray, 0, low=0.0, high=1.0)
    save_dicom(tmp_path / "two.dcm", xray, 0, low=0.0, high=1.0)
    save_dicom(tmp_path / "other.dcm", xray, 1, low=0.0, high=1.0)
    assert (tmp_path / "one.dcm").read_bytes() == (tmp_path / "two.dcm").read_bytes()
    file, other = pydicom.dcmread(tmp_path / "one.dcm"), pydicom.dcmread(tmp_path / "other.dcm")
    assert file.SOPInstanceUID != other.SOPInstanceUID and file.SOPInstanceUID.is_valid
    for element in file:
        if element.keyword.startswith("Patient") and element.keyword != "PatientOrientation":
            assert not element.value, element.keyword
        assert element.VR not in ("DA", "TM", "DT") or not element.value


def test_a_saturated_dicom_stays_white(tmp_path, xray):
    xray.image[0, 0, 0], xray.image[0, 0, 1] = 50.0, -3.0
    save_dicom(tmp_path / "x.dcm", xray, 0, low=0.0, high=1.0)
    pixels = pydicom.dcmread(tmp_path / "x.dcm").pixel_array
    assert pixels[0, 0] == 65535 and pixels[0, 1] == 0


def test_a_png_replaces_an_old_one_in_one_step(tmp_path):
    save_png(tmp_path / "a.png", np.zeros((2, 3), np.uint8))
    save_png(tmp_path / "a.png", np.full((2, 3), 9, np.uint8))
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[9] * 3] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
