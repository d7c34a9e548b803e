"""NIfTI volumes: written so that the same content is the same bytes, read so that a damaged file is noticed."""

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Integer, Shaped
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy import ndarray

from xr2ct.files import publish

MAX_BYTES = 4 * 2**30


class VolumeError(Exception):
    """The file is missing, damaged or not one 3-D volume; the text is a reason without a path."""


def read_nifti(path: Path) -> tuple[Shaped[ndarray, "z y x"], Float[ndarray, "4 4"]]:
    """The array as (z, y, x) and the affine index (x, y, z, 1) -> RAS mm.

    The gzip stream is read to its end because only that checks its CRC; nibabel alone would not.
    """
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_BYTES)
        image = nib.Nifti1Image.from_bytes(content)
        array = np.asanyarray(image.dataobj)
    except FileNotFoundError as error:
        raise VolumeError("file is missing") from error
    except (OSError, EOFError, zlib.error, ValueError, ImageFileError, HeaderDataError) as error:
        raise VolumeError(f"file is damaged ({type(error).__name__})") from error
    if array.ndim != 3:
        raise VolumeError(f"file has {array.ndim} dimensions, expected 3")
    return array.T, np.asarray(image.affine, np.float64)


def save_nifti(path: Path, array: Integer[ndarray, "z y x"], affine: Float[ndarray, "4 4"]) -> None:
    """Publish a (z, y, x) array as NIfTI in RAS mm; nibabel wants (x, y, z). The same content is the same bytes."""
    image = nib.Nifti1Image(np.ascontiguousarray(array.T), affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    with publish(path) as private:
        private.write_bytes(gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))
