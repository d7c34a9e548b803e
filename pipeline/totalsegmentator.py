"""TotalSegmentator as a labeller: the real package, imported when asked for, its weights looked for before it starts."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Integer
from numpy import ndarray

from pipeline.errors import UserError
from pipeline.read import read_volume

WEIGHTS = {True: (297,), False: (291, 292, 293, 294, 295)}
"""Data set numbers of the networks behind task `total`, by `fast` (3 mm) or not (1.5 mm)."""


def weights_folder() -> Path:
    """Where TotalSegmentator looks for its networks."""
    if "TOTALSEG_WEIGHTS_PATH" in os.environ:
        return Path(os.environ["TOTALSEG_WEIGHTS_PATH"])
    home = Path(os.environ.get("TOTALSEG_HOME_DIR", Path.home() / ".totalsegmentator"))
    return home / "nnunet" / "results"


def require_weights(*, fast: bool) -> None:
    """Stop with the next step to take where a network is missing, instead of a failing download minutes later."""
    folder = weights_folder()
    missing = [number for number in WEIGHTS[fast] if not any(folder.glob(f"Dataset{number:03d}_*"))]
    if missing:
        task = "total_fast" if fast else "total"
        raise UserError(
            f"TotalSegmentator's weights {missing} are not in {folder}; labels of this kind need them. "
            f"Run: totalseg_download_weights -t {task}   (needs network), or set labels.missing to none."
        )


def segment(ct: Path, *, fast: bool, device: str) -> tuple[Integer[ndarray, "i j k"], Float[ndarray, "4 4"]]:
    """Label ids of task `total` (scheme totalsegmentator_v2) on the voxels of the CT, and their affine."""
    require_weights(fast=fast)
    try:
        from totalsegmentator.config import set_config_key, setup_totalseg
        from totalsegmentator.python_api import totalsegmentator
    except ImportError as error:
        raise UserError(
            "labels by TotalSegmentator need the package TotalSegmentator, which is not installed. "
            "Run: pip install 'xr2ct[totalsegmentator]' -c constraints.txt   or set labels.missing to none."
        ) from error
    setup_totalseg()
    set_config_key("send_usage_stats", False)
    volume = read_volume(ct)
    image = nib.Nifti1Image(volume.data.astype(np.int16), volume.affine)
    result = totalsegmentator(image, None, ml=True, fast=fast, device=device, quiet=True)
    return np.asanyarray(result.dataobj).astype(np.uint8), np.asarray(result.affine, dtype=np.float64)
