"""A real chest, damaged on purpose, and what is true of each variant: for benchmarks/readers.py."""

from __future__ import annotations

import copy
import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from numpy import ndarray
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
SAMPLES = 20_000

Slices = list[pydicom.Dataset]


@dataclass(frozen=True)
class Truth:
    """HU at points of the world (RAS mm), the distance of the slices, and where it matters to the bit the whole array."""

    points_mm: ndarray
    hu: ndarray
    spacing_mm: float
    whole: ndarray | None = None


@dataclass(frozen=True)
class Case:
    """A variant of the series or file: what was done to it, what a reader should do (read, refuse, or tell two series
    apart), the truth, and the truth of a second series beside it."""

    name: str
    expected: str
    make: Callable[[Path], Path]
    truth: Truth
    other: Truth | None = None


def hu_of(one: pydicom.Dataset) -> ndarray:
    return one.pixel_array.astype(float) * float(one.RescaleSlope) + float(one.RescaleIntercept)


def slice_affine(one: pydicom.Dataset) -> ndarray:
    """(column, row, 0, 1) -> RAS mm by the standard's own formula (C.7.6.2.1-1)."""
    lps = np.eye(4)
    lps[:3, 0] = np.array(one.ImageOrientationPatient[:3], float) * float(one.PixelSpacing[1])
    lps[:3, 1] = np.array(one.ImageOrientationPatient[3:], float) * float(one.PixelSpacing[0])
    lps[:3, 3] = np.array(one.ImagePositionPatient, float)
    return FLIP @ lps


def truth_of(slices: Slices, spacing_mm: float) -> Truth:
    """Random pixels of each slice, with the place that its own header gives them."""
    rng = np.random.default_rng(1)
    points, values = [], []
    for one in slices:
        count = SAMPLES // len(slices)
        columns, rows = rng.integers(1, one.Columns - 1, count), rng.integers(1, one.Rows - 1, count)
        index = np.stack([columns, rows, np.zeros(count), np.ones(count)])
        points.append((slice_affine(one) @ index)[:3].T)
        values.append(hu_of(one)[rows, columns])
    return Truth(np.concatenate(points), np.concatenate(values), spacing_mm)


def uid(text: str) -> str:
    return pydicom.uid.generate_uid(entropy_srcs=[text])


def save(folder: Path, slices: Slices) -> Path:
    """Files under names that say nothing of their order."""
    for one, name in zip(slices, np.random.default_rng(2).permutation(len(slices)), strict=True):
        one.save_as(folder / f"im{name:04d}.dcm", enforce_file_format=True)
    return folder


def store(one: pydicom.Dataset, pixels: ndarray, **tags) -> None:
    one.PixelData = np.ascontiguousarray(pixels).tobytes()
    for name, value in tags.items():
        setattr(one, name, value)


def dicom_cases(good: Slices) -> Iterator[Case]:
    """The catalogue's damages on copies of the good slices (ordered from feet to head)."""
    spacing = abs(float(good[1].ImagePositionPatient[2]) - float(good[0].ImagePositionPatient[2]))
    truth = truth_of(good, spacing)
    middle = len(good) // 2

    def case(name: str, expected: str, change: Callable[[Slices, Path], Slices], seen=None, other=None) -> Case:
        def make(folder: Path) -> Path:
            return save(folder, change(copy.deepcopy(good), folder))

        return Case(name, expected, make, seen or truth, other)

    yield case("good series", "read", lambda slices, _: slices)
    for name, kept in (
        ("one slice missing", good[:middle] + good[middle + 1 :]),
        ("every other slice of the upper half missing", good[:middle] + good[middle::2]),
    ):
        yield case(name, "refuse", lambda _, __, kept=kept: copy.deepcopy(kept), seen=truth_of(kept, spacing))

    def cut(slices, folder):
        slices[middle].save_as(folder / "cut.dcm", enforce_file_format=True)
        content = (folder / "cut.dcm").read_bytes()
        (folder / "cut.dcm").write_bytes(content[: int(0.6 * len(content))])
        return slices[:middle] + slices[middle + 1 :]

    yield case("one file cut off at 60 %", "refuse", cut)

    def twin(slices, _, change=0):
        again = copy.deepcopy(slices[middle])
        again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = uid("twin")
        store(again, again.pixel_array + np.uint16(change), InstanceNumber=999)
        return [*slices, again]

    yield case("one slice twice", "read", twin)
    yield case("two different slices at one place", "refuse", lambda slices, folder: twin(slices, folder, 100))

    def localizer(slices, _):
        scout = copy.deepcopy(slices[0])
        scout.ImageType, scout.InstanceNumber = ["ORIGINAL", "PRIMARY", "LOCALIZER"], 0
        scout.ImageOrientationPatient, scout.ImagePositionPatient = [1, 0, 0, 0, 0, -1], [-200, 0, 100]
        scout.SOPInstanceUID = scout.file_meta.MediaStorageSOPInstanceUID = uid("scout")
        return [*slices, scout]

    yield case("a localizer among the slices", "read", localizer)

    def tilted(slices, _=None):
        for one in slices:
            one.ImageOrientationPatient = [1, 0, 0, 0, 0.965926, -0.258819]
            one.GantryDetectorTilt = 15
        return slices

    yield case("gantry tilted by 15 degrees", "read", tilted, seen=truth_of(tilted(copy.deepcopy(good)), spacing))

    def intercepts(slices, _=None):
        for one in (slices[0], slices[-1]):
            store(one, hu_of(one).clip(0).astype("<u2"), RescaleIntercept=0)
        return slices

    seen = truth_of(intercepts(copy.deepcopy(good)), spacing)
    yield case("intercept 0 in the outermost slices, -1024 elsewhere", "read", intercepts, seen=seen)

    def signs(slices, _):
        for one in slices[::2]:
            hu = hu_of(one)
            store(one, hu.astype("<i2"), RescaleIntercept=0, PixelRepresentation=1, BitsStored=16, HighBit=15)
        return slices

    yield case("unsigned and signed pixels in turn", "read", signs)

    def no_rescale(slices, _):
        for one in slices:
            del one.RescaleSlope, one.RescaleIntercept
        return slices

    yield case("no rescale tags", "refuse", no_rescale)

    def two(slices, _):
        others = copy.deepcopy(slices)
        for number, one in enumerate(others):
            one.SeriesInstanceUID = uid("series")
            one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = uid(f"other {number}")
            store(one, one.pixel_array[::-1])
        return [*slices, *others]

    yield case(
        "two series in one folder", "tell", two, other=truth_of(two(copy.deepcopy(good), None)[len(good) :], spacing)
    )

    def disorder(slices, folder):
        for number, one in enumerate(slices):
            one.InstanceNumber = len(slices) - number
            one.SliceLocation = number * 3.0
        (folder / "notes.txt").write_text("not an image")
        (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"junk")
        return slices

    yield case("numbers reversed, text files and a broken DICOMDIR beside", "read", disorder)

    def thick(slices, _):
        for one in slices:
            one.SliceThickness = one.SpacingBetweenSlices = 3.0
        return slices

    yield case("SliceThickness and SpacingBetweenSlices 3 mm", "read", thick)

    def packed(slices, _):
        for one in slices:
            one.compress(JPEG2000Lossless, generate_instance_uid=False)
        return slices

    yield case("JPEG 2000", "read", packed)


def nifti_cases(hu: ndarray, affine: ndarray) -> Iterator[Case]:
    """Damages of one NIfTI file of the same chest."""
    index = np.random.default_rng(3).integers(1, np.array(hu.shape) - 1, (SAMPLES, 3))

    def truth(at: ndarray) -> Truth:
        points = index @ at[:3, :3].T + at[:3, 3]
        return Truth(points, hu[tuple(index.T)].astype(float), float(np.linalg.norm(at[:3, 2])), hu)

    def content(at=affine, data=hu, qform=None, **fields) -> bytes:
        image = nib.Nifti1Image(data, None, dtype=data.dtype)
        image.header.set_xyzt_units("mm")
        image.set_sform(at, code=1)
        image.set_qform(at if qform is None else qform, code=1, strip_shears=True)
        raw = bytearray(image.to_bytes())
        header = nib.Nifti1Header(bytes(raw[:348]), check=False)
        for name, value in fields.items():
            header[name] = value
        return bytes(header.binaryblock + raw[348:])

    def case(name, expected, data, seen=None, suffix=".nii.gz") -> Case:
        def make(folder: Path) -> Path:
            (folder / f"ct{suffix}").write_bytes(data)
            return folder / f"ct{suffix}"

        return Case(name, expected, make, seen or truth(affine))

    packed = gzip.compress(content(), compresslevel=1, mtime=0)
    yield case("good .nii.gz", "read", packed)
    for share in (0.95, 0.6):
        yield case(f".nii.gz cut off at {share:.0%}", "refuse", packed[: int(share * len(packed))])
    yield case("one bit flipped in .nii.gz", "refuse", _flipped(packed))
    yield case(".nii cut off at 60 %", "refuse", content()[: int(0.6 * len(content()))], suffix=".nii")
    lean = affine.copy()
    lean[:3, 2] += np.linalg.norm(affine[:3, 2]) * np.tan(np.deg2rad(15)) * np.array([0, 1, 0])
    yield case("sform leans by 15 degrees, qform cannot", "read", gzip.compress(content(lean), 1), truth(lean))
    turn = np.eye(4)
    turn[:3, :3] = _turn(0.31) @ _turn(0.22)[::-1, ::-1]
    rounded = np.round(turn @ affine, 2)
    fields = {"qform_code": 0}
    yield case("oblique affine of two decimals", "read", gzip.compress(content(rounded, **fields), 1), truth(rounded))
    yield case("slope 0 beside an intercept of -1024", "read", gzip.compress(content(scl_slope=0, scl_inter=-1024), 1))
    mirrored = np.diag([-1.0, 1, 1, 1]) @ affine
    yield case("qform mirrored, sform right", "read", gzip.compress(content(qform=mirrored), 1))
    yield case("pixdim of 0, sform right", "read", gzip.compress(content(pixdim=[1, *[0] * 7], qform_code=0), 1))
    yield case("units say metres", "refuse", gzip.compress(content(xyzt_units=1), 1))
    yield case("no orientation at all", "refuse", gzip.compress(content(qform_code=0, sform_code=0), 1))


def _turn(angle: float) -> ndarray:
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])


def _flipped(packed: bytes) -> bytes:
    """A bit whose flip still inflates to the full length (most are of this kind): the worst of some, by voxels changed."""
    whole = gzip.decompress(packed)
    worst, most = b"", 0
    for place in np.random.default_rng(4).integers(len(packed) // 4, len(packed) - 8, 200):
        damaged = bytearray(packed)
        damaged[place] ^= 4
        try:
            inflated = zlib.decompressobj(wbits=-15).decompress(bytes(damaged[10:]))
        except zlib.error:
            continue
        if len(inflated) == len(whole):
            changed = int((np.frombuffer(inflated, np.uint8) != np.frombuffer(whole, np.uint8)).sum())
            worst, most = (bytes(damaged), changed) if changed > most else (worst, most)
    return worst


def load_series(folder: Path, thin: int) -> Slices:
    """The slices from feet to head, plain, every `thin`-th pixel: still a real header and real HU, but quick."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]
    slices.sort(key=lambda one: float(one.ImagePositionPatient[2]))
    for one in slices:
        pixels = one.pixel_array[::thin, ::thin]
        one.PixelSpacing = [float(value) * thin for value in one.PixelSpacing]
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        store(one, pixels, Rows=pixels.shape[0], Columns=pixels.shape[1])
    return slices


def as_volume(good: Slices) -> tuple[ndarray, ndarray]:
    hu = np.stack([hu_of(one).T for one in good], axis=2).astype(np.int16)
    affine = slice_affine(good[0])
    affine[:3, 2] = (slice_affine(good[-1])[:3, 3] - affine[:3, 3]) / (len(good) - 1)
    return hu, affine
