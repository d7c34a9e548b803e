"""The cube as NIfTI between the stages: any viewer opens it, the same content is the same bytes."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Integer
from numpy import ndarray

from pipeline.files import publish


def save_nifti(path: Path, array: Integer[ndarray, "z y x"], affine: ndarray) -> None:
    """Publish an integer (z, y, x) array as .nii.gz in RAS mm.

    The header keeps the affine in float32; the exact one travels in case.json.
    """
    image = nib.Nifti1Image(np.ascontiguousarray(array.T), affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    with publish(path) as private:
        private.write_bytes(gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))


def load_nifti(path: Path) -> Integer[ndarray, "z y x"]:
    """The array that `save_nifti` wrote, read to the end with its checksum."""
    image = nib.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))
    return np.ascontiguousarray(np.asanyarray(image.dataobj).T)
