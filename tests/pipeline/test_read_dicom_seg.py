"""DICOM Segmentations: 21 x 19 pixels, so that no frame begins on a byte, and a box that is its own mirror nowhere."""

from __future__ import annotations

import re

import numpy as np
import pydicom
import pytest

from pipeline.files import read_table
from pipeline.read import dicom_seg
from pipeline.read.dicom_seg import CODES, is_dicom_seg, read_dicom_seg
from pipeline.structures import load_scheme
from tests.pipeline.read_cases import SENTINEL, refused
from tests.pipeline.segmentations import LPS, item, save, segment, segmentation

SHAPE = (21, 19, 12)
AFFINE = np.array([[-0.9, 0, 0, 31], [0, -1.1, 0, 44], [0, 0, 2.5, -70], [0, 0, 0, 1]])
LIVER, SPLEEN = segment(3, "Liver"), segment(7, "spleen")


def tilted() -> np.ndarray:
    """Rows, columns and the direction of the slices all oblique; the slices lean by 4 mm in 10."""
    angle = np.radians(17)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    tip = np.array([[1, 0, 0], [0, np.cos(0.2), -np.sin(0.2)], [0, np.sin(0.2), np.cos(0.2)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tip @ np.diag([-0.9, -1.1, 2.5])
    affine[:3, 2] += affine[:3, 1] / 1.1
    affine[:3, 3] = [31, 44, -70]
    return affine


def boxes() -> dict[int, np.ndarray]:
    """Segment 3 off centre, segment 7 within it for a part; slices 0, 1 and 11 are empty, 6 holds nothing of 3."""
    masks = {number: np.zeros(SHAPE, bool) for number in (3, 7)}
    masks[3][2:11, 4:16, 2:11] = True
    masks[3][2:5, 4:7, 2:11] = False
    masks[3][:, :, 6] = False
    masks[7][9:14, 12:18, 4:8] = True
    return masks


def in_world(data: np.ndarray, affine: np.ndarray, value: int) -> np.ndarray:
    """Sorted RAS mm of the voxels of one id."""
    places = np.argwhere(data == value) @ affine[:3, :3].T + affine[:3, 3]
    return places[np.lexsort(places.round(3).T)]


@pytest.mark.parametrize("affine", [AFFINE, tilted()], ids=["straight", "tilted"])
@pytest.mark.parametrize("shuffle", [None, 1, 2])
@pytest.mark.parametrize("between", [True, False])
def test_every_voxel_is_where_it_was_and_the_smaller_segment_wins(tmp_path, affine, shuffle, between):
    masks = boxes()
    path = save(tmp_path / "a", segmentation(masks, affine, [LIVER, SPLEEN], shuffle=shuffle, between=between))
    found = read_dicom_seg(path)
    assert found.names == {3: "liver", 7: "spleen"} and set(np.unique(found.data)) == {0, 3, 7}
    assert found.data.shape == (21, 19, 9), "from the first slice that has a frame to the last"
    expected = np.where(masks[7], 7, np.where(masks[3], 3, 0))
    for value in (3, 7):
        np.testing.assert_allclose(
            in_world(found.data, found.affine, value), in_world(expected, affine, value), atol=1e-4
        )
    swapped = read_dicom_seg(save(tmp_path / "b", segmentation(dict(reversed(masks.items())), affine, [SPLEEN, LIVER])))
    np.testing.assert_array_equal(swapped.data, found.data)


def test_of_two_equally_large_segments_the_last_wins_as_with_mask_files(tmp_path):
    masks = {number: np.zeros(SHAPE, bool) for number in (3, 7)}
    masks[3][2:6, 3, 3:5] = masks[7][4:8, 3, 3:5] = True
    found = read_dicom_seg(save(tmp_path / "a", segmentation(masks, AFFINE, [LIVER, SPLEEN])))
    assert (found.data == 7).sum() == 8 and (found.data == 3).sum() == 4


def test_a_fraction_counts_from_one_half(tmp_path):
    values = np.zeros(SHAPE, np.uint8)
    values[2:5, 3, 4:6], values[6, 7, 4:6], values[8, 9, 4:6] = 200, 100, 99
    found = read_dicom_seg(save(tmp_path / "a", segmentation({3: values}, AFFINE, [LIVER], fractional=True)))
    np.testing.assert_array_equal(found.data[:, :, 0] == 3, values[:, :, 4] >= 100)


def test_descending_slices_of_a_flipped_writer_are_the_same_patient(tmp_path):
    """Rows written from the back to the front turn the normal around."""
    flipped = {number: mask[:, ::-1] for number, mask in boxes().items()}
    affine = AFFINE @ np.array([[1, 0, 0, 0], [0, -1, 0, SHAPE[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    found = read_dicom_seg(save(tmp_path / "a", segmentation(flipped, affine, [LIVER, SPLEEN])))
    expected = np.where(boxes()[7], 7, np.where(boxes()[3], 3, 0))
    np.testing.assert_allclose(in_world(found.data, found.affine, 3), in_world(expected, AFFINE, 3), atol=1e-4)
    assert (LPS @ found.affine)[2, 2] < 0


def test_positions_with_two_decimals_are_a_lattice_and_gaps_stay_gaps(tmp_path):
    affine = AFFINE.copy()
    affine[2, 2] = 1.24731
    path = save(tmp_path / "a", segmentation(boxes(), affine, [LIVER, SPLEEN], decimals=2))
    found = read_dicom_seg(path)
    assert found.data.shape[2] == 9 and abs(found.affine[2, 2] - 1.24731) < 2e-3
    few = {3: np.zeros(SHAPE, bool)}
    few[3][4:6, 5:9, 2] = few[3][4:6, 5:9, 8] = True
    found = read_dicom_seg(save(tmp_path / "b", segmentation(few, AFFINE, [LIVER])))
    assert found.data.shape[2] == 7 and np.flatnonzero(found.data.any(axis=(0, 1))).tolist() == [0, 6]
    one = {3: few[3] & (np.arange(12) == 8)}
    found = read_dicom_seg(save(tmp_path / "c", segmentation(one, AFFINE, [LIVER])))
    assert found.data.shape[2] == 1 and found.affine[2, 2] == 2.5 and found.affine[2, 3] == -50.0


def test_every_structure_of_version_1_has_a_code_of_its_own():
    """Codes of four structures by hand from the SNOMED browser."""
    rows = {row["name"]: row for row in read_table(CODES)}
    assert list(rows) == list(load_scheme("totalsegmentator_v1").values())
    assert len({(row["code"], row["side"]) for row in rows.values()}) == 104
    for name, snomed in {"spleen": "78961009", "kidney_left": "64033007", "vertebrae_T1": "64864005"}.items():
        assert rows[name]["code"] == snomed
    for name, row in rows.items():
        side = re.search("left|right", name)
        assert row["side"] in ("", side[0] if side else "")


def test_segments_are_named_by_words_or_by_code_never_by_number(tmp_path):
    segments = [
        segment(1, "Kidney", "", "64033007", "right"),
        segment(2, "Gluteus medius muscle", "Left gluteus minimus", "78333006", "left"),
        segment(3, "Gluteus medius muscle", "Left gluteus medius", "78333006", "left"),
        segment(4, "kidney_left"),
        segment(5, "Left rib 1", "", "48535007", "left"),
        segment(6, "Upper lobe of lung", "", "45653009", "right"),
        segment(7, "", "", "82471001"),
        segment(8, "ventricle", "", "87878005"),
        segment(9, f"Tumour of {SENTINEL}", SENTINEL, "108369006"),
        segment(10, "Kidney", "", "64033007"),
    ]
    masks = {number: np.zeros(SHAPE, bool) for number in range(1, 11)}
    for number, mask in masks.items():
        mask[number, 3:5, 3:5] = True
    found = read_dicom_seg(save(tmp_path / "a", segmentation(masks, AFFINE, segments)))
    assert list(found.names.values()) == [
        "kidney_right", "gluteus_minimus_left", "gluteus_medius_left", "kidney_left", "rib_left_1", "lung_upper_lobe_right",
        "heart_atrium_left", "heart_ventricle_left", "segment_9", "segment_10",
    ]  # fmt: skip


def changed(**changes):
    """A good segmentation with something wrong."""
    dataset = segmentation(boxes(), AFFINE, [LIVER, SPLEEN])
    for name, value in changes.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    return dataset


def moved(mm: tuple[float, float, float]) -> pydicom.Dataset:
    dataset = changed()
    place = dataset.PerFrameFunctionalGroupsSequence[4].PlanePositionSequence[0]
    place.ImagePositionPatient = [float(a) + b for a, b in zip(place.ImagePositionPatient, mm, strict=True)]
    return dataset


def turned() -> pydicom.Dataset:
    dataset = changed()
    own = item(ImageOrientationPatient=[1, 0, 0, 0, 0, 1])
    dataset.PerFrameFunctionalGroupsSequence[3].PlaneOrientationSequence = [own]
    return dataset


def renumbered(number: int) -> pydicom.Dataset:
    dataset = changed()
    dataset.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence[0].ReferencedSegmentNumber = number
    return dataset


def twice() -> pydicom.Dataset:
    dataset = changed()
    frames = dataset.PerFrameFunctionalGroupsSequence
    frames[1].PlanePositionSequence = frames[0].PlanePositionSequence
    return dataset


def one_thick() -> pydicom.Dataset:
    mask = np.zeros(SHAPE, bool)
    mask[3:5, 3:5, 3] = True
    return segmentation({3: mask}, AFFINE, [LIVER], between=False)


@pytest.mark.parametrize(
    ("dataset", "code", "words"),
    [
        (changed(SOPClassUID="1.2.840.10008.5.1.4.1.1.2"), "E_NOT_NIFTI", "no Segmentation"),
        (changed(SegmentationType="LABELMAP"), "E_DTYPE", "BINARY"),
        (changed(BitsAllocated=8), "E_DTYPE", "1 bit"),
        (changed(NumberOfFrames=4), "E_HEADER", "frames"),
        (changed(SegmentSequence=[]), "E_HEADER", "frames"),
        (changed(PerFrameFunctionalGroupsSequence=None), "E_DICOM_CODEC", "damaged"),
        (changed(SharedFunctionalGroupsSequence=None), "E_DICOM_CODEC", "position"),
        (changed(PixelData=None), "E_DICOM_CODEC", "damaged"),
        (changed(PixelData=b"\0" * 200), "E_TRUNCATED", "expected 599"),
        (moved((0, 0, 0.7)), "E_DICOM_GAP", "equidistant"),
        (moved((0.9, 0, 0)), "E_DICOM_GAP", "straight line"),
        (moved((0, 0, 1e9)), "E_TOO_LARGE", "slices"),
        (one_thick(), "E_DICOM_GAP", "unknown thickness"),
        (turned(), "E_DICOM_MIXED", "orientation"),
        (renumbered(5), "E_LABEL_VALUES", "describe"),
        (twice(), "E_DICOM_DUPLICATE", "segment 3"),
        (changed(SegmentSequence=[LIVER, segment(3, "spleen")]), "E_LABEL_VALUES", "describe"),
        (changed(SegmentSequence=[LIVER, segment(7, "x", "", "10200004")]), "E_LABEL_VALUES", "both liver"),
    ],
)
def test_wrong_segmentations_are_refused_by_name(tmp_path, dataset, code, words):
    dataset.PatientID = dataset.PatientName = dataset.SeriesDescription = SENTINEL
    refused(save(tmp_path / "ZZseg", dataset), code, words, read=read_dicom_seg)


def test_damaged_compressed_and_foreign_files(tmp_path):
    good = save(tmp_path / "good", changed())
    assert is_dicom_seg(good)
    for name, content in {"text": b"no image", "empty": b"", "cut": good.read_bytes()[:400]}.items():
        (tmp_path / name).write_bytes(content)
        assert is_dicom_seg(tmp_path / name) == (name == "cut")
        refused(tmp_path / name, "E_DICOM_CODEC", read=read_dicom_seg)
    packed = changed()
    packed.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    refused(save(tmp_path / "packed", packed), "E_DICOM_CODEC", "compressed", read=read_dicom_seg)


def test_only_these_tags_are_read():
    """None of them names a person; what people type into SegmentSequence is only compared."""
    assert not {"PatientID", "PatientName", "SeriesDescription", "ContentLabel"} & set(dicom_seg.TAGS)
