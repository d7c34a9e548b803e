"""A cohort of little CTs as hospitals send them: NIfTI, NRRD and DICOM, some of each broken in every way the catalogue has."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import yaml
from numpy import ndarray
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SHAPE = (20, 18, 14)
AFFINE = np.array([[-2.5, 0, 0, 30], [0, 3.0, 0, -40], [0, 0, 4.0, 10], [0, 0, 0, 1.0]])
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
HEART, STERNUM, LIVER = 51, 116, 5
SPLITS = ("train", "train", "train", "train", "train", "train", "validation", "test", "test", "test")
CONFIG = {
    "name": "scale",
    "seed": 7,
    "cohort": [
        {
            "source": "folder",
            "csv": "cohort.csv",
            "dataset": "scale",
            "license": "CC0-1.0",
            "attribution": "made by benchmarks/broken_cohort.py",
        }
    ],
    "grid": {"shape": 16, "spacing_mm": 4.0},
    "structures": ["heart", "sternum", "liver"],
    "simulators": {"cone": {"beam": "cone", "detector_px": [16, 16], "pixel_mm": 7.0}},
    "runs": {},
    "report_splits": ["test"],
}


def phantom(seed: int) -> tuple[ndarray, ndarray]:
    """A noisy CT of its own, int16 HU (i, j, k), and its label ids; `AFFINE` turns the first axis to the patient's left."""
    i, j, k = (axis / size for axis, size in zip(np.indices(SHAPE, dtype=float), SHAPE, strict=True))
    rng = np.random.default_rng(seed)
    ct = np.full(SHAPE, -1000.0)
    ids = np.zeros(SHAPE, np.uint8)
    ct[((i - 0.5) / 0.42) ** 2 + ((j - 0.5) / 0.4) ** 2 < 1] = rng.uniform(10, 60)
    for value, hu, inside in (
        (HEART, 300, ((i - 0.6) / 0.16) ** 2 + ((j - 0.5) / 0.16) ** 2 + ((k - 0.5) / 0.2) ** 2 < 1),
        (STERNUM, 800, (((i - 0.5) / 0.09) ** 2 + ((j - 0.8) / 0.09) ** 2 < 1) & (k > 0.2)),
        (LIVER, 90, (abs(i - 0.3) < 0.12) & (abs(j - 0.5) < 0.2) & (abs(k - 0.2) < 0.15)),
    ):
        ct[inside], ids[inside] = hu, value
    return np.rint(ct + rng.normal(0, 8, SHAPE)).clip(-1024).astype(np.int16), ids


def nifti(data: ndarray, affine: ndarray = AFFINE) -> bytes:
    """A plain .nii file's bytes."""
    image = nib.Nifti1Image(data, affine, dtype=data.dtype)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm")
    return image.to_bytes()


def packed(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=1, mtime=0)


def _patched(content: bytes, place: int, value: ndarray) -> bytes:
    return content[:place] + value.tobytes() + content[place + value.nbytes :]


def _flipped(content: bytes) -> bytes:
    return _patched(content, len(content) // 2, np.frombuffer(content, np.uint8)[len(content) // 2] ^ np.uint8(16))


BROKEN_CT: dict[str, tuple[str, Callable[[ndarray], bytes]]] = {
    "truncated": ("E_GZIP_TRUNCATED", lambda ct: packed(nifti(ct))[:-2000]),
    "last-bytes": ("E_GZIP_TRUNCATED", lambda ct: packed(nifti(ct))[:-4]),
    "flipped-bit": ("E_GZIP_CRC", lambda ct: _flipped(packed(nifti(ct)))),
    "web-page": ("E_NOT_NIFTI", lambda ct: b"<html>404</html>" * 40),
    "empty": ("E_NOT_NIFTI", lambda ct: b""),
    "short": ("E_TRUNCATED", lambda ct: packed(nifti(ct)[:-500])),
    "unoriented": ("E_NO_ORIENTATION", lambda ct: packed(_patched(nifti(ct), 252, np.zeros(2, np.int16)))),
    "huge": ("E_TOO_LARGE", lambda ct: packed(_patched(nifti(ct), 42, np.full(3, 32767, np.int16)))),
    "two-volumes": ("E_DIM", lambda ct: packed(nifti(np.stack([ct, ct], axis=3)))),
    "metres": ("E_UNITS", lambda ct: packed(_patched(nifti(ct), 123, np.array([1], np.uint8)))),
    "nan": ("E_NONFINITE", lambda ct: packed(nifti(np.full(SHAPE, np.nan, np.float32)))),
    "constant": ("E_CONSTANT", lambda ct: packed(nifti(np.full_like(ct, 7)))),
    "windowed": ("E_HU_RANGE", lambda ct: packed(nifti(((ct.clip(-160, 240) + 160) * 0.6375).astype(np.uint8)))),
    "complex": ("E_DTYPE", lambda ct: packed(nifti(ct.astype(np.complex64)))),
}
BROKEN_LABEL: dict[str, tuple[str, Callable[[ndarray], bytes]]] = {
    "label-larger": ("E_LABEL_SHAPE", lambda ids: packed(nifti(np.pad(ids, ((0, 3), (0, 0), (0, 0)))))),
    "label-moved": ("E_LABEL_AFFINE", lambda ids: packed(nifti(ids, AFFINE + np.eye(4)[:, [3, 3, 3, 0]]))),
    "label-unknown": ("E_LABEL_VALUES", lambda ids: packed(nifti(np.where(ids == HEART, 250, ids).astype(np.uint8)))),
    "label-empty": ("E_LABEL_EMPTY", lambda ids: packed(nifti(np.zeros_like(ids)))),
    "label-truncated": ("E_GZIP_TRUNCATED", lambda ids: packed(nifti(ids))[:-12]),
}
BROKEN_SERIES: dict[str, tuple[str, Callable[[list], list]]] = {
    "slice-missing": ("E_DICOM_GAP", lambda slices: slices[:5] + slices[6:]),
    "few-slices": ("E_DICOM_FEW_SLICES", lambda slices: slices[:3]),
    "slice-cut": ("E_DICOM_CODEC", lambda slices: [*slices[:5], slices[5][:-300], *slices[6:]]),
}
HOSTILE = ("../x", "a;touch P", "$(touch Q)", "a b", "</script><img onerror=alert(1)>", "CON")
KINDS = (*BROKEN_CT, *BROKEN_LABEL, *BROKEN_SERIES, "nrrd-truncated", "gone")


def series(ct: ndarray, name: str) -> list[bytes]:
    """The slices of a DICOM series, feet first, one file's bytes each."""
    lps = FLIP @ AFFINE
    spacing = np.linalg.norm(AFFINE[:3, :3], axis=0)
    files = []
    for number in range(ct.shape[2]):
        one = pydicom.Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = CTImageStorage
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[name, str(number)])
        one.SeriesInstanceUID = generate_uid(entropy_srcs=[name])
        one.Modality, one.InstanceNumber, one.ImageType = "CT", number + 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.ImageOrientationPatient = [*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])]
        one.ImagePositionPatient = (lps @ [0, 0, number, 1])[:3].tolist()
        one.PixelSpacing, one.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        one.Columns, one.Rows = ct.shape[:2]
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 1
        one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
        one.RescaleSlope, one.RescaleIntercept = 1, 0
        one.PixelData = np.ascontiguousarray(ct[:, :, number].T, "<i2").tobytes()
        buffer = pydicom.filebase.DicomBytesIO()
        pydicom.dcmwrite(buffer, one, enforce_file_format=True)
        files.append(buffer.getvalue())
    return files


def _write_case(folder: Path, name: str, seed: int, kind: str, style: str) -> dict[str, str]:
    """The files of one case, broken as `kind` says, and its row of the CSV."""
    ct, ids = phantom(seed)
    bad_ct, bad_label = BROKEN_CT.get(kind, ("", None))[1], BROKEN_LABEL.get(kind, ("", None))[1]
    label = bad_label(ids) if bad_label else packed(nifti(ids))
    (folder / f"{name}-label.nii.gz").write_bytes(label)
    if style == "dicom":
        path = folder / name
        path.mkdir()
        files = series(ct, name)
        for number, content in enumerate(BROKEN_SERIES[kind][1](files) if kind in BROKEN_SERIES else files):
            (path / f"{number:03d}.dcm").write_bytes(content)
    elif style == "nrrd":
        path = folder / f"{name}.nrrd"
        lps = FLIP @ AFFINE
        header = {"space": "left-posterior-superior", "space directions": lps[:3, :3].T, "space origin": lps[:3, 3]}
        nrrd.write(str(path), ct, header | {"encoding": "raw"})
        if kind == "nrrd-truncated":
            path.write_bytes(path.read_bytes()[:-500])
    else:
        path = folder / f"{name}.nii.gz"
        if kind != "gone":
            path.write_bytes(bad_ct(ct) if bad_ct else packed(nifti(ct)))
    return {"case": name, "ct": f"data/{path.name}", "label": f"data/{name}-label.nii.gz"}


def make_cohort(folder: Path, cases: int, *, broken: float = 0.05, seed: int = 1) -> dict[str, str]:
    """Write data/, cohort.csv and config.yaml; returns the code that each broken case must get, by its id in the CSV.

    Of `cases`, the fraction `broken` is broken, one kind after the other; of the others every twentieth is DICOM, every
    twentieth NRRD, and every twentieth has an id that cannot be a file name. Three cases in a row are one patient's and
    share a split.
    """
    data = folder / "data"
    data.mkdir(parents=True)
    count = round(broken * cases)
    places = np.sort(np.random.default_rng(seed).permutation(cases)[:count])
    kinds = {int(place): KINDS[number % len(KINDS)] for number, place in enumerate(places)}
    rows, codes = [], {}
    for number in range(cases):
        kind = kinds.get(number, "")
        style = {7: "nrrd", 13: "dicom"}.get(number % 20, "nifti") if not kind else "nifti"
        style = "dicom" if kind in BROKEN_SERIES else "nrrd" if kind == "nrrd-truncated" else style
        row = _write_case(data, f"s{number:06d}", seed * 1_000_003 + number, kind, style)
        if number % 20 == 3 and not kind:
            again, which = divmod(number // 20, len(HOSTILE))
            row["case"] = HOSTILE[which] + "!" * again
        if kind:
            known = {**BROKEN_CT, **BROKEN_LABEL, **BROKEN_SERIES}
            special = {"nrrd-truncated": "E_TRUNCATED", "gone": "E_MISSING"}
            codes[row["case"]] = special.get(kind) or known[kind][0]
        patient = number // 3
        rows.append(row | {"subject": f"p{patient}", "split": SPLITS[patient % len(SPLITS)]})
    with (folder / "cohort.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, ["case", "ct", "label", "subject", "split"])
        writer.writeheader()
        writer.writerows(rows)
    config = CONFIG | {"max_quarantine_fraction": min(1.0, broken + 0.01)}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return codes
