"""The judges by name, and what they have in common."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int16, UInt8
from numpy import ndarray

from xr2ct.errors import UserError
from xr2ct.judge.record import RECORD, read_record
from xr2ct.settings import unknown


@runtime_checkable
class Segmenter(Protocol):
    """Finds structures in a CT; `kind` names its metrics, `learned` the cases it was trained on."""

    kind: str
    structures: tuple[str, ...]
    learned: frozenset[str]

    def segment(self, ct_hu: Int16[ndarray, "z y x"], affine: Float[ndarray, "4 4"]) -> UInt8[ndarray, "z y x"]:
        """Labels on the voxels of the CT, values in the order of `structures`, 0 for background."""
        ...


def _nnunet(folder: Path, device: torch.device) -> Segmenter:
    from xr2ct.judge.nnunet import NnunetSegmenter

    return NnunetSegmenter(folder, device)


def _totalsegmentator(structures: Sequence[str], device: torch.device) -> Segmenter:
    from xr2ct.judge.totalsegmentator import TotalSegmentator

    return TotalSegmentator(structures, device, fast=False)


def _totalsegmentator_fast(structures: Sequence[str], device: torch.device) -> Segmenter:
    from xr2ct.judge.totalsegmentator import TotalSegmentator

    return TotalSegmentator(structures, device, fast=True)


TRAINED: Mapping[str, Callable[[Path, torch.device], Segmenter]] = MappingProxyType({"nnunet": _nnunet})
"""Kinds that `xr2ct judge-train` trains."""
READY_MADE: Mapping[str, Callable[[Sequence[str], torch.device], Segmenter]] = MappingProxyType(
    {"totalsegmentator": _totalsegmentator, "totalsegmentator-fast": _totalsegmentator_fast}
)
"""Kinds that come trained."""


def open_judge(judge: str, structures: Sequence[str], device: torch.device) -> Segmenter:
    """A judge by the name of a ready-made one or the folder of a trained one, asked for `structures`."""
    if judge in READY_MADE:
        segmenter = READY_MADE[judge](structures, device)
    elif not Path(judge).is_dir():
        raise UserError(
            f"judge {judge!r} is no folder; expected the folder of a finished `xr2ct judge-train` "
            f"or one of: {', '.join(READY_MADE)}."
        )
    else:
        record = read_record(Path(judge))
        if record.kind not in TRAINED:
            raise unknown(f"{Path(judge) / RECORD}: kind", record.kind, TRAINED)
        segmenter = TRAINED[record.kind](Path(judge), device)
    if not set(structures[1:]) & set(segmenter.structures[1:]):
        raise UserError(
            f"judge {judge} knows {', '.join(segmenter.structures[1:]) or 'no structure'}; expected at least one of "
            f"{', '.join(structures[1:]) or 'none'}, which the shards name. Train a judge on shards of this configuration."
        )
    return segmenter
