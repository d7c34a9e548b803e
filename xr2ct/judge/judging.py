"""Let a segmenter that never saw a reconstruction say how much of the anatomy it finds in it: rows as of `evaluate`."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int16, Real, UInt8
from numpy import ndarray
from tqdm import tqdm

from xr2ct.device import choose_device
from xr2ct.errors import UserError
from xr2ct.evaluate import COLUMNS, Score, describe_case, find_cases, read_on_grid, require_known
from xr2ct.judge.registry import Segmenter, open_judge
from xr2ct.metrics.registry import STRUCTURE_METRICS, compare_structures
from xr2ct.nifti import VolumeError
from xr2ct.reconstructions import Run, read_index
from xr2ct.shards import COMPLETE, CUT, IGNORE, Case, open_shards
from xr2ct.tables import write_csv

TRUE_CT = "true CT"
HU_RANGE = (-1024, 3071)


def judge(
    *,
    judge: str,
    shards: Sequence[Path],
    reconstructions: Path | None = None,
    out: Path,
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Write Dice, HD95 and Chamfer of what the judge finds in the reconstructions or, without them, in the true CTs.

    The latter is the ceiling: what the judge reaches where nothing was reconstructed; its model is `true CT`.
    """
    where = choose_device(device, threads)
    opened = open_shards(shards)
    run = read_index(reconstructions) if reconstructions else None
    places = find_cases(opened)
    if not places:
        raise UserError("no case in the shards; expected at least one. Give --shards files with cases.")
    if run:
        require_known(run, places, reconstructions)
    segmenter = open_judge(judge, opened[0].structures, where)
    about_run = {"simulator": run.simulator, "model": run.name, "seed": run.seed} if run else None
    rows: list[dict] = []
    for shard, i in tqdm(places.values(), desc=f"judge {run.name if run else TRUE_CT}", unit="case"):
        case = shard.case(i)
        about = describe_case(case) | (about_run or {"simulator": "", "model": TRUE_CT, "seed": ""})
        rows += [about | vars(score) for score in judge_case(case, shard.structures, run, segmenter)]
    write_csv(out, COLUMNS, rows)


def judge_case(case: Case, structures: Sequence[str], run: Run | None, segmenter: Segmenter) -> Iterator[Score]:
    """Scores of every structure that the case is annotated for; `run` None judges the true CT."""
    try:
        found, problem = segmenter.segment(ct_to_judge(case, run), case.affine), ""
    except VolumeError as error:
        found, problem = None, str(error)
    for value, name in list(enumerate(structures))[1:]:
        if case.label_status[value] in (CUT, COMPLETE):
            unknown = "" if name in segmenter.structures else "the judge does not know this structure"
            if found is None or unknown:
                for metric, (unit, _) in STRUCTURE_METRICS.items():
                    yield Score(f"{segmenter.kind}-{metric}", name, math.nan, unit, problem or unknown)
            else:
                yield from _scores(case, value, name, found, segmenter)


def _scores(case: Case, value: int, name: str, found: UInt8[ndarray, "z y x"], segmenter: Segmenter) -> Iterator[Score]:
    true = case.label == value
    predicted = (found == segmenter.structures.index(name)) & (case.label != IGNORE)
    reason = "the judge was trained on this case" if case.id in segmenter.learned else ""
    if not true.any():
        reason = "structure has no voxel in the reference"
    elif not predicted.any():
        reason = "the judge finds no voxel of the structure"
    for metric, score in compare_structures(true, predicted, case.affine).items():
        yield Score(f"{segmenter.kind}-{metric}", name, score, STRUCTURE_METRICS[metric][0], reason)


def ct_to_judge(case: Case, run: Run | None) -> Int16[ndarray, "z y x"]:
    """The volume in whole HU, as shards store it, whatever a run wrote; VolumeError with the reason if it is unusable."""
    if run is None:
        return case.ct_hu
    if case.id not in run.cases:
        raise VolumeError("case was not reconstructed")
    return whole_hu(read_on_grid(run.cases[case.id].ct, case))


def whole_hu(volume: Real[ndarray, "z y x"]) -> Int16[ndarray, "z y x"]:
    """Rounded and clipped to -1024..3071."""
    if not np.isfinite(volume).all():
        raise VolumeError("reconstruction holds values that are not finite")
    return np.clip(np.rint(volume), *HU_RANGE).astype(np.int16)
