"""The cube as NIfTI between the stages: any viewer opens it, the same content is the same bytes."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from jaxtyping import Integer
from numpy import ndarray

from pipeline.files import publish

_DTYPES = {2: np.dtype("u1"), 4: np.dtype("<i2"), 8: np.dtype("<i4"), 256: np.dtype("i1"), 512: np.dtype("<u2")}


def save_nifti(path: Path, array: Integer[ndarray, "z y x"], affine: ndarray) -> None:
    """Publish an integer (z, y, x) array as .nii.gz in RAS mm.

    The header keeps the affine in float32; the exact one travels in case.json.
    """
    import nibabel as nib

    image = nib.Nifti1Image(np.ascontiguousarray(array.T), affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    with publish(path) as private:
        private.write_bytes(gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))


def load_nifti(path: Path) -> Integer[ndarray, "z y x"]:
    """The array that `save_nifti` wrote, read to the end with its checksum.

    Without nibabel, which takes longer to import than a small case to simulate.
    """
    content = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(content, "<i2", 3, offset=42)
    (code,) = np.frombuffer(content, "<i2", 1, offset=70)
    (start,) = np.frombuffer(content, "<f4", 1, offset=108).astype(int)
    if code not in _DTYPES:
        raise ValueError(
            f"{path.name} has NIfTI data type {code}; expected one that save_nifti writes: {list(_DTYPES)}"
        )
    data = np.frombuffer(content, _DTYPES[code], shape.prod(dtype=int), offset=start)
    return data.reshape(shape[::-1]).copy()
