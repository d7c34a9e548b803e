"""One X-ray from an image file: PNG, JPEG, TIFF, DICOM, NIfTI or NPY, told apart by their content, never flipped."""

import gzip
import io
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Shaped
from numpy import ndarray

from xr2ct.errors import UserError

MAX_PIXELS = 2**26
MAX_BYTES = 2**30
EXPECTED = "PNG, JPEG, TIFF, DICOM, NIfTI or NPY"


@dataclass(frozen=True)
class Picture:
    """Pixel values as the file means them (a DICOM's rescale applied), rows downwards, columns to the right.

    `runs_to` holds the patient directions (of LRAPIS) in which columns and rows run, where a DICOM says so; `relation`
    is a DICOM's PixelIntensityRelationship, `position` its ViewPosition. `low_is_white` is MONOCHROME1.
    """

    values: Float64[ndarray, "v u"]
    kind: str
    whole_numbers: bool = False
    low_is_white: bool = False
    relation: str = ""
    position: str = ""
    runs_to: tuple[str, str] | None = None


def read_picture(path: Path) -> Picture:
    """The one grey image that a file holds; anything else is a UserError that says what was found."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: {path.stat().st_size / 2**20:.0f} MiB; expected one image of at most 1024 MiB.")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Give an image file: {EXPECTED}.") from error
    reader = _reader(content)
    if reader is None:
        raise UserError(f"{path}: is no image that is known here; expected {EXPECTED}. Convert it.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders complain about harmless header fields
            picture = reader(content)
    except (UserError, MemoryError):
        raise
    except _Refused as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # decoders raise many kinds, and their texts may quote a patient's tags
        raise UserError(f"{path}: is damaged ({type(error).__name__}); expected a whole {EXPECTED} file.") from None
    lost = int((~np.isfinite(picture.values)).sum())
    if lost:
        raise UserError(f"{path}: {lost} pixels are NaN or infinite; expected numbers everywhere. Repair the image.")
    if picture.values.min() == picture.values.max():
        raise UserError(f"{path}: every pixel is {picture.values.flat[0]:g}; expected an X-ray. Give another image.")
    return picture


class _Refused(Exception):
    """The file is whole but not one grey image; the text is a reason without a path."""


def _reader(content: bytes) -> Callable[[bytes], Picture] | None:
    if content[128:132] == b"DICM":
        return _read_dicom
    if content[:6] == b"\x93NUMPY":
        return _read_npy
    if content[:2] == b"\x1f\x8b" or content[344:347] in (b"n+1", b"ni1"):
        return _read_nifti
    if content[:4] in (b"\x89PNG", b"II*\0", b"MM\0*") or content[:3] == b"\xff\xd8\xff":
        return _read_pillow
    return None


def _read_pillow(content: bytes) -> Picture:
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "TIFF")) as image:
        if image.width * image.height > MAX_PIXELS:
            raise _Refused(f"image of {image.height} x {image.width} pixels; expected at most {MAX_PIXELS}. Shrink it.")
        if getattr(image, "n_frames", 1) > 1:
            raise _Refused(f"holds {image.n_frames} images; expected one. Save the X-ray alone.")
        kind = image.format or ""
        if image.mode in ("RGB", "RGBA", "P", "LA", "CMYK", "YCbCr"):
            return Picture(_grey_of_colour(np.asarray(image.convert("RGBA"))), kind, whole_numbers=True)
        array = np.asarray(image)
    return Picture(_plane(array), kind, whole_numbers=array.dtype.kind in "iub")


def _grey_of_colour(rgba: Shaped[ndarray, "v u 4"]) -> Float64[ndarray, "v u"]:
    """Colour images are taken where they are grey all the same."""
    if (rgba[..., 3] < 255).any():
        raise _Refused("has transparent pixels; expected a grey image. Save it without transparency.")
    if (rgba[..., :3] != rgba[..., :1]).any():
        raise _Refused("is a colour image; expected a grey one, without coloured writing on it. Convert it to grey.")
    return _plane(rgba[..., 0])


def _read_npy(content: bytes) -> Picture:
    array = np.load(io.BytesIO(content), allow_pickle=False)
    return Picture(_plane(array), "NPY", whole_numbers=array.dtype.kind in "iub")


def _read_nifti(content: bytes) -> Picture:
    """Index (i, j) is (column u, row v); the affine is not used: the geometry places the image."""
    import nibabel as nib

    if content[:2] == b"\x1f\x8b":
        try:
            with gzip.open(io.BytesIO(content)) as file:
                content = file.read(MAX_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            raise _Refused(
                f"is damaged ({type(error).__name__}); expected a whole NIfTI file. Copy it again."
            ) from error
    image = nib.Nifti1Image.from_bytes(content)
    whole = image.get_data_dtype().kind in "iu" and image.dataobj.slope == 1
    return Picture(_plane(np.asanyarray(image.dataobj).T), "NIfTI", whole_numbers=bool(whole))


def _read_dicom(content: bytes) -> Picture:
    import pydicom
    from pydicom.pixels import apply_modality_lut

    dataset = pydicom.dcmread(io.BytesIO(content))
    if "PixelData" not in dataset:
        raise _Refused("is a DICOM file without pixels; expected one radiograph. Give the image, not the report.")
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise _Refused(f"PhotometricInterpretation is {photometric!r}; expected MONOCHROME1 or 2. Convert it to grey.")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise _Refused(f"holds {dataset.NumberOfFrames} frames; expected one radiograph. Save one frame alone.")
    values = apply_modality_lut(dataset.pixel_array, dataset)
    runs_to = [_letter(str(text)) for text in dataset.get("PatientOrientation") or ()]
    return Picture(
        _plane(np.asarray(values)),
        "DICOM",
        whole_numbers=True,
        low_is_white=photometric == "MONOCHROME1",
        relation=str(dataset.get("PixelIntensityRelationship") or ""),
        position=str(dataset.get("ViewPosition") or ""),
        runs_to=(runs_to[0], runs_to[1]) if len(runs_to) == 2 and all(runs_to) else None,
    )


def _letter(text: str) -> str:
    """The strongest direction of a PatientOrientation value, head and foot as S and I; "" if it is none."""
    return {"H": "S", "F": "I"}.get(text[:1], text[:1] if text[:1] in tuple("LRAP") else "")


def _plane(array: Shaped[ndarray, "..."]) -> Float64[ndarray, "v u"]:
    """One 2-D image of real numbers; axes of length 1 in front or behind are dropped."""
    if array.dtype.kind not in "iufb":
        raise _Refused(f"holds values of type {array.dtype}; expected real numbers. Convert it.")
    found = array.shape
    while array.ndim > 2 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim != 2 or min(array.shape) < 8 or array.size > MAX_PIXELS:
        raise _Refused(
            f"holds an array of shape {found}; expected one image (rows, columns) of 8 to {MAX_PIXELS} pixels."
        )
    return array.astype(np.float64)
