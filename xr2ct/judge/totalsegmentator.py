"""TotalSegmentator as a judge: the real package, only where it and its networks are; its classes merged by name."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from jaxtyping import Float, Int16, UInt8
from numpy import ndarray

from xr2ct.errors import UserError
from xr2ct.judge.environment import environment
from xr2ct.judge.groups import classes_of

NETWORKS = {True: (297,), False: (291, 292, 293, 294, 295)}
"""Data set numbers of the networks behind task `total`, by `fast` (3 mm) or not (1.5 mm)."""
TOUCHED = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


class TotalSegmentator:
    """Knows those of `structures` whose classes it has all of; turns the package's usage statistics off, for good."""

    learned: frozenset[str] = frozenset()

    def __init__(self, structures: Sequence[str], device: torch.device, *, fast: bool):
        self.kind = "totalsegmentator-fast" if fast else "totalsegmentator"
        if find_spec("totalsegmentator") is None:
            raise UserError(
                f"judge {self.kind} needs the package TotalSegmentator, which is not installed. "
                "Run: pip install 'xr2ct[totalsegmentator]' -c constraints.txt"
            )
        require_networks(fast=fast)
        from totalsegmentator.config import get_config_key, set_config_key, setup_totalseg
        from totalsegmentator.map_to_binary import class_map

        with environment(dict.fromkeys(TOUCHED)):
            setup_totalseg()
            if get_config_key("send_usage_stats") is not False:
                set_config_key("send_usage_stats", False)
        self.structures, self._lookup = merge(class_map["total"], structures)
        self._options = {"ml": True, "fast": fast, "device": "gpu" if device.type == "cuda" else "cpu"}
        self._options |= {"quiet": True, "nr_thr_saving": 1}

    def segment(self, ct_hu: Int16[ndarray, "z y x"], affine: Float[ndarray, "4 4"]) -> UInt8[ndarray, "z y x"]:
        from totalsegmentator.python_api import totalsegmentator

        with environment(dict.fromkeys(TOUCHED)):
            result = totalsegmentator(nib.Nifti1Image(ct_hu.T, affine), None, **self._options)
        return self._lookup[np.asarray(result.dataobj, np.uint8).T]


def merge(classes: dict[int, str], structures: Sequence[str]) -> tuple[tuple[str, ...], UInt8[ndarray, "256"]]:
    """The structures whose classes are all there, and the table from class id to their place: half is not a structure."""
    names = set(classes.values())
    known = (structures[0], *(structure for structure in structures[1:] if names.issuperset(classes_of(structure))))
    value_of = {name: value for value, structure in enumerate(known[1:], start=1) for name in classes_of(structure)}
    lookup = np.zeros(256, np.uint8)
    for number, name in classes.items():
        lookup[number] = value_of.get(name, 0)
    return known, lookup


def networks_folder() -> Path:
    """Where TotalSegmentator looks for its networks."""
    if "TOTALSEG_WEIGHTS_PATH" in os.environ:
        return Path(os.environ["TOTALSEG_WEIGHTS_PATH"])
    user = Path.home() if Path.home() != Path("/") else Path("/tmp")  # as the package does for a user without a home
    return Path(os.environ.get("TOTALSEG_HOME_DIR", user / ".totalsegmentator")) / "nnunet" / "results"


def require_networks(*, fast: bool) -> None:
    """UserError where a network is missing, before the package tries to download it and fails."""
    folder = networks_folder()
    missing = [number for number in NETWORKS[fast] if not any(folder.glob(f"Dataset{number:03d}_*"))]
    if missing:
        raise UserError(
            f"TotalSegmentator's weights {missing} are not in {folder}; this judge needs them. "
            f"Run: totalseg_download_weights -t {'total_fast' if fast else 'total'}   (needs network), "
            "or train a judge of kind nnunet."
        )
