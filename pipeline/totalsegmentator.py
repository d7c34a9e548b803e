"""TotalSegmentator as a labeller: the real package, imported only when it and its networks are there."""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Integer
from numpy import ndarray

from pipeline.errors import UserError
from pipeline.read import read_volume

WEIGHTS = {True: (297,), False: (291, 292, 293, 294, 295)}
"""Data set numbers of the networks behind task `total`, by `fast` (3 mm) or not (1.5 mm)."""
CROP_WEIGHTS = 298
"""The 6 mm network that finds where to look when only some classes are wanted."""


def weights_folder() -> Path:
    """Where TotalSegmentator looks for its networks."""
    if "TOTALSEG_WEIGHTS_PATH" in os.environ:
        return Path(os.environ["TOTALSEG_WEIGHTS_PATH"])
    user = Path.home() if Path.home() != Path("/") else Path("/tmp")  # as the package does for a user without a home
    return Path(os.environ.get("TOTALSEG_HOME_DIR", user / ".totalsegmentator")) / "nnunet" / "results"


def require_weights(*, fast: bool, crop: bool) -> None:
    """Stop with the next step to take where a network is missing, before the package tries to download it and fails."""
    folder = weights_folder()
    needed = (*WEIGHTS[fast], CROP_WEIGHTS) if crop else WEIGHTS[fast]
    missing = [number for number in needed if not any(folder.glob(f"Dataset{number:03d}_*"))]
    if missing:
        task = "total_fast" if fast else "total"
        raise UserError(
            f"TotalSegmentator's weights {missing} are not in {folder}; labels of this kind need them. "
            f"Run: totalseg_download_weights -t {task}   (needs network), or set labels.missing to none."
        )


def package_version() -> str:
    """The installed version of the package."""
    try:
        return version("TotalSegmentator")
    except PackageNotFoundError:
        return "unknown"


@cache
def keep_networks() -> None:
    """Have the package load each network once in this process, not once per CT: it makes a new predictor for every call."""
    from totalsegmentator import nnunet

    loaded: dict[tuple, dict] = {}

    class Predictor(nnunet.nnUNetPredictor):
        def initialize_from_trained_model_folder(self, folder, use_folds, checkpoint_name="checkpoint_final.pth"):
            key = (str(folder), str(use_folds), checkpoint_name, str(self.device))
            if key not in loaded:
                before = dict(vars(self))
                super().initialize_from_trained_model_folder(folder, use_folds, checkpoint_name)
                loaded[key] = {name: value for name, value in vars(self).items() if before.get(name) is not value}
            vars(self).update(loaded[key])

    nnunet.nnUNetPredictor = Predictor


def segment(
    ct: Path, *, fast: bool, device: str, classes: list[str] | None = None, assume_orientation: str = ""
) -> tuple[Integer[ndarray, "i j k"], Float[ndarray, "4 4"]]:
    """Label ids of task `total` (scheme totalsegmentator_v2) on the voxels of the CT, and their affine.

    `classes`: only these are looked for (the package's roi_subset), in the box in which a coarse network
    finds them. Turns the package's usage statistics off, for good: that is a line of its own config.json.
    """
    if find_spec("totalsegmentator") is None:
        raise UserError(
            "labels by TotalSegmentator need the package TotalSegmentator, which is not installed. "
            "Run: pip install 'xr2ct[totalsegmentator]' -c constraints.txt   or set labels.missing to none."
        )
    require_weights(fast=fast, crop=classes is not None)
    from totalsegmentator.config import get_config_key, set_config_key, setup_totalseg
    from totalsegmentator.python_api import totalsegmentator

    keep_networks()
    setup_totalseg()
    if get_config_key("send_usage_stats") is not False:  # another case may be reading the file: write it once only
        set_config_key("send_usage_stats", False)
    volume = read_volume(ct, assume_orientation=assume_orientation)
    image = nib.Nifti1Image(volume.data, volume.affine)
    try:
        result = totalsegmentator(
            image, None, ml=True, fast=fast, roi_subset=classes, device=device, quiet=True, nr_thr_saving=1
        )
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        raise UserError(
            "TotalSegmentator loads torchvision, which does not fit the torch beside it (one is built for CUDA, the "
            "other is not). Install both from the same package index, then run the same command again."
        ) from error
    return np.asarray(result.dataobj, dtype=np.uint8), np.asarray(result.affine, dtype=np.float64)
