"""W12: how much memory a large CT takes to read, in bytes per voxel beside what Python and its libraries take."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.pipeline.records import fetched
from tests.pipeline.test_read_dicom import image, save

SIZE, SLICES = 512, 120
SPACING = np.diag([0.75, 0.75, 0.8, 1.0])
SLACK_BYTES = 48e6
"""Blocks, hashes, codecs and the sample that the HU check looks at."""
LARGEST_BYTES = 3e9
"""What a CT of 512 x 512 x 1000 may take from the file to the cube."""
_NUMBERS = {"<i2": (4, "short", "MET_SHORT"), "<f4": (16, "float", "MET_FLOAT"), "<f8": (64, "double", "MET_DOUBLE")}
_NUMBERS["<i8"] = (1024, "int64", "MET_LONG_LONG")
READ = """
import sys
from pathlib import Path
from pipeline.read import read_label, read_volume

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before = peak()
{"ct": read_volume, "label": read_label}[sys.argv[1]](Path(sys.argv[2]))
print(peak() - before)
"""
INGEST = """
import sys
from pathlib import Path
from pipeline.__main__ import main
code = main(sys.argv[1:])
print(next(1024 * int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM")))
sys.exit(code)
"""
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process")


def planes() -> list[np.ndarray]:
    """HU (i, j) of an oval body in air, at seven places; a volume repeats them."""
    i, j = np.ogrid[:SIZE, :SIZE]
    body = ((i / SIZE - 0.5) / 0.35) ** 2 + ((j / SIZE - 0.5) / 0.3) ** 2 < 1
    noise = np.random.default_rng(0).normal(0, 12, (SIZE, SIZE))
    plane = np.rint(np.where(body, 40, -1000) + noise - 120 * (body & (i < 0.3 * SIZE)))
    return [np.roll(plane, shift, axis=0) for shift in range(7)]


def header(kind: str, dtype: str, slices: int) -> bytes:
    code, nrrd_name, mha_name = _NUMBERS[dtype]
    if kind == "nii":
        one = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), SPACING).header
        one.set_xyzt_units("mm")
        one["dim"], one["vox_offset"] = [3, SIZE, SIZE, slices, 1, 1, 1, 1], 352
        one["datatype"], one["bitpix"] = code, 8 * np.dtype(dtype).itemsize
        return one.binaryblock + b"\0" * 4
    if kind == "nrrd":
        return (
            f"NRRD0004\ntype: {nrrd_name}\ndimension: 3\nspace: RAS\nsizes: {SIZE} {SIZE} {slices}\n"
            "space directions: (0.75,0,0) (0,0.75,0) (0,0,0.8)\nspace origin: (0,0,0)\nendian: little\nencoding: raw\n\n"
        ).encode()
    return (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
        f"ElementSpacing = 0.75 0.75 0.8\nDimSize = {SIZE} {SIZE} {slices}\nElementType = {mha_name}\n"
        "ElementDataFile = LOCAL\n"
    ).encode()


def write(path: Path, kind: str, dtype: str, content: list[np.ndarray], *, slices=SLICES, pack=bytes) -> Path:
    """A volume that repeats some slices; packed, each is a gzip member of its own."""
    blocks = [pack(plane.astype(dtype).tobytes(order="F")) for plane in content]
    with path.open("wb") as file:
        file.write(pack(header(kind, dtype, slices)))
        for k in range(slices):
            file.write(blocks[k % len(blocks)])
    return path


def peak_of(program: str, *arguments: str | Path) -> int:
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **threads})
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def bytes_per_voxel(what: str, path: Path) -> float:
    return (peak_of(READ, what, path) - SLACK_BYTES) / (SIZE * SIZE * SLICES)


@pytest.mark.parametrize(
    ("kind", "dtype", "fraction", "most"),
    [
        ("nii", "<i2", 0, 3),
        ("nii", "<f4", 0.37, 7),
        ("nii", "<f8", 0.37, 7),
        ("nrrd", "<f8", 0.37, 7),
        ("mha", "<f8", 0.37, 7),
        ("mha", "<i8", 0, 7),
    ],
)
def test_w12_a_ct_is_read_in_few_bytes_per_voxel(tmp_path, kind, dtype, fraction, most):
    """float32 (4) with its copy in int16 (2), whatever the file holds; the float64 of a file alone would be 8."""
    path = write(tmp_path / "ct", kind, dtype, [plane + fraction for plane in planes()])
    assert bytes_per_voxel("ct", path) < most
    path.unlink()


def test_w12_a_packed_ct_takes_no_more(tmp_path):
    for dtype, most in (("<i2", 3), ("<f8", 7)):
        path = write(tmp_path / "ct", "nii", dtype, planes(), pack=lambda block: gzip.compress(block, 1))
        assert bytes_per_voxel("ct", path) < most, dtype


def test_w12_a_label_map_of_64_bits_takes_no_more(tmp_path):
    ids = np.zeros((SIZE, SIZE))
    ids[200:300, 200:300] = 5
    path = write(tmp_path / "label", "nii", "<i8", [ids], pack=lambda block: gzip.compress(block, 1))
    assert bytes_per_voxel("label", path) < 7


def test_w12_a_series_takes_no_more(tmp_path):
    several = planes()
    images = [image(k, several[k % 7].T, SPACING) for k in range(SLICES)]
    assert bytes_per_voxel("ct", save(tmp_path / "series", images)) < 7


@pytest.mark.slow
def test_w12_a_thousand_slices_are_ingested_in_less_than_3_gb(tmp_path):
    several = [plane + 0.37 for plane in planes()]
    path = write(tmp_path / "ct.nii.gz", "nii", "<f8", several, slices=1000, pack=lambda block: gzip.compress(block, 1))
    record = fetched(tmp_path, path)
    peak = peak_of(INGEST, "ingest", record, "--cube", "128", "--spacing-mm", "3", "--out", tmp_path / "ingest")
    path.unlink()
    assert '"status": "ok"' in (tmp_path / "ingest/case.json").read_text()
    assert peak < LARGEST_BYTES, f"{peak / 1e6:.0f} MB"
