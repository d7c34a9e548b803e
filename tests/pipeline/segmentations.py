"""DICOM Segmentations as the standard describes them, written with pydicom alone: for the tests that read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

LPS = np.diag([-1.0, -1, 1, 1])
SIDES = {"left": "7771000", "right": "24028007"}


def item(**values) -> pydicom.Dataset:
    one = pydicom.Dataset()
    for name, value in values.items():
        setattr(one, name, value)
    return one


def code(value: str, meaning: str = "a meaning", **more) -> pydicom.Dataset:
    return item(CodeValue=value, CodingSchemeDesignator="SCT", CodeMeaning=meaning, **more)


def segment(number: int, label: str = "", description: str = "", snomed: str = "", side: str = "") -> pydicom.Dataset:
    """One item of the SegmentSequence."""
    one = item(SegmentNumber=number, SegmentLabel=label, SegmentAlgorithmType="AUTOMATIC")
    if description:
        one.SegmentDescription = description
    if snomed:
        kind = code(snomed)
        if side:
            kind.SegmentedPropertyTypeModifierCodeSequence = [code(SIDES[side])]
        one.SegmentedPropertyTypeCodeSequence = [kind]
    return one


def segmentation(
    masks: dict[int, np.ndarray],
    affine: np.ndarray,
    segments: list[pydicom.Dataset],
    *,
    shuffle: int | None = None,
    skip_empty: bool = True,
    fractional: bool = False,
    between: bool = True,
    decimals: int = 6,
) -> pydicom.Dataset:
    """`masks` (i, j, k) by segment number at `affine` @ (i, j, k, 1) RAS mm; frames in order or `shuffle`d by a seed."""
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3], axis=0)
    frames = [
        (number, k, mask[:, :, k])
        for number, mask in masks.items()
        for k in range(mask.shape[2])
        if mask[:, :, k].any() or not skip_empty
    ]
    if shuffle is not None:
        frames = [frames[index] for index in np.random.default_rng(shuffle).permutation(len(frames))]
    one = pydicom.Dataset()
    one.file_meta = pydicom.dataset.FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = SegmentationStorage
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.77"
    one.Modality, one.SegmentationType = "SEG", "FRACTIONAL" if fractional else "BINARY"
    one.SegmentSequence = segments
    one.Columns, one.Rows = next(iter(masks.values())).shape[:2]
    one.NumberOfFrames, one.SamplesPerPixel, one.PhotometricInterpretation = len(frames), 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 8 if fractional else 1
    one.HighBit, one.PixelRepresentation = one.BitsStored - 1, 0
    measures = item(PixelSpacing=[float(spacing[1]), float(spacing[0])], SliceThickness=9.0)
    if between:
        measures.SpacingBetweenSlices = float(spacing[2])
    axes = [round(float(value), 9) for value in [*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])]]
    one.SharedFunctionalGroupsSequence = [
        item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[item(ImageOrientationPatient=axes)])
    ]
    one.PerFrameFunctionalGroupsSequence = [
        item(
            SegmentIdentificationSequence=[item(ReferencedSegmentNumber=number)],
            PlanePositionSequence=[
                item(ImagePositionPatient=[round(float(v), decimals) for v in lps[:3] @ [0, 0, k, 1]])
            ],
        )
        for number, k, _ in frames
    ]
    pixels = np.array([frame.T for _, _, frame in frames])
    if fractional:
        one.MaximumFractionalValue, one.SegmentationFractionalType = 200, "PROBABILITY"
        stored = pixels.astype(np.uint8).tobytes()
    else:
        stored = np.packbits(pixels.astype(bool).ravel(), bitorder="little").tobytes()
    one.PixelData = stored + b"\0" * (len(stored) % 2)
    one["PixelData"].VR = "OB"
    return one


def save(path: Path, dataset: pydicom.Dataset) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path
