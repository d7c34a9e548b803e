"""Many binary masks of one CT become one label map, in memory: a public set of 1228 CTs comes as 143 676 mask files."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable

import nibabel as nib
import numpy as np

from pipeline.archives import gunzip
from pipeline.errors import CaseError

_SAME_MM = 0.01
_GEOMETRY = (
    *(
        "pixdim",
        "qform_code",
        "sform_code",
        "quatern_b",
        "quatern_c",
        "quatern_d",
        "qoffset_x",
        "qoffset_y",
        "qoffset_z",
    ),
    *("srow_x", "srow_y", "srow_z", "xyzt_units"),
)


def merge_masks(ct: bytes, masks: Iterable[tuple[int, bytes]]) -> bytes:
    """A .nii.gz label map (uint8) on the voxels of a CT (.nii.gz) from (id, .nii.gz mask of 0 and 1).

    Where masks overlap the smaller structure wins, because it would be lost in the larger one; of equal ones the larger id.
    """
    header = _header(ct)
    shape, affine = header.get_data_shape(), header.get_best_affine()
    voxels = int(np.prod(shape))
    inside = []
    for value, data in masks:
        image = nib.Nifti1Image.from_bytes(gunzip(data, limit=8 * voxels + (1 << 20)))
        if image.shape != shape:
            raise CaseError("E_LABEL_SHAPE", f"mask {value} has shape {image.shape}, its CT {shape}")
        if np.abs(image.affine - affine).max() > _SAME_MM:
            raise CaseError("E_LABEL_AFFINE", f"mask {value} does not lie on the voxels of its CT")
        mask = np.asanyarray(image.dataobj).ravel(order="F")
        if mask.min() < 0 or mask.max() > 1 or (mask.dtype.kind == "f" and not np.isin(mask, (0, 1)).all()):
            raise CaseError("E_LABEL_VALUES", f"mask {value} holds other values than 0 and 1")
        # As bool, NumPy skips the zeros of a mask an order of magnitude faster.
        inside.append((value, np.flatnonzero(mask.astype(bool, copy=False)).astype(np.uint32)))
    label = np.zeros(voxels, np.uint8)
    for value, where in sorted(inside, key=lambda item: (-len(item[1]), item[0])):
        label[where] = value
    merged = nib.Nifti1Header()
    merged.set_data_dtype(np.uint8)
    for name in _GEOMETRY:
        merged[name] = header[name]
    image = nib.Nifti1Image(label.reshape(shape, order="F"), None, merged)
    return gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)


def _header(ct: bytes) -> nib.Nifti1Header:
    """The header of a .nii.gz whose voxels are not looked at here."""
    try:
        header = nib.Nifti1Header.from_fileobj(
            io.BytesIO(zlib.decompressobj(wbits=31).decompress(ct, 348)), check=False
        )
    except (zlib.error, nib.spatialimages.HeaderDataError, nib.wrapstruct.WrapStructError):
        raise CaseError("E_NOT_NIFTI", "the CT in the archive does not begin as .nii.gz") from None
    if header["dim"][0] != 3 or min(header.get_data_shape()) < 1 or int(header["sizeof_hdr"]) != 348:
        raise CaseError("E_HEADER", "the CT in the archive has no header of a 3-D NIfTI image")
    return header
