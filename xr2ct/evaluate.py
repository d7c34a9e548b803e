"""Compare reconstructions with the CTs of the shards: one tidy row per case, metric and structure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from tqdm import tqdm

from xr2ct.errors import UserError
from xr2ct.metrics.legacy import LEGACY_VOLUME_METRICS
from xr2ct.metrics.legacy_structures import LEGACY_LABEL_METRICS, LEGACY_STRUCTURE_METRICS
from xr2ct.metrics.region import REGION_METRICS, compare_regions
from xr2ct.metrics.registry import (
    STRUCTURE_METRICS,
    VOLUME_METRICS,
    StructureMetrics,
    VolumeMetrics,
    compare_structures,
    compare_volumes,
)
from xr2ct.metrics.window import Window
from xr2ct.nifti import VolumeError, read_nifti
from xr2ct.reconstructions import Run, read_index
from xr2ct.shards import COMPLETE, CUT, IGNORE, Case, Shard, open_shards
from xr2ct.tables import write_csv

COLUMNS = ("case", "subject", "split", "simulator", "model", "seed", "metric", "structure", "value", "unit", "reason")
CORNER_TOLERANCE_MM = 1e-3


@dataclass(frozen=True)
class Score:
    """One number; NaN always has a reason, and `reason` may also qualify a number."""

    metric: str
    structure: str
    value: float
    unit: str
    reason: str = ""


def evaluate(
    *, reconstructions: Path, shards: Sequence[Path], window: tuple[float, float], out: Path, legacy: bool = False
) -> None:
    """Write the scores of one run as CSV; a case that has no usable reconstruction gets NaN rows with the reason.

    `legacy` adds the metrics of single papers beside ours.
    """
    low_hu, high_hu = window
    if not -math.inf < low_hu < high_hu < math.inf:
        raise UserError(f"window is {low_hu:g} to {high_hu:g} HU, expected the lower end first. Use e.g. -1000 1500.")
    run, opened = read_index(reconstructions), open_shards(shards)
    places = find_cases(opened)
    require_known(run, places, reconstructions)
    rows = []
    for shard, i in tqdm(places.values(), desc=f"evaluate {run.name}", unit="case"):
        case = shard.case(i)
        about = describe_case(case) | {"simulator": run.simulator, "model": run.name, "seed": run.seed}
        for score in score_case(case, shard.structures, run, Window(float(low_hu), float(high_hu)), legacy=legacy):
            rows.append(about | vars(score))
    write_csv(out, COLUMNS, rows)
    undefined = sum(math.isnan(row["value"]) for row in rows)
    why = f", {undefined} of them nan for the reason beside it" if undefined else ""
    print(f"{out}: {len(places)} cases, {len(rows)} scores{why}")


def find_cases(shards: Sequence[Shard]) -> dict[str, tuple[Shard, int]]:
    """Shard and number of every case by its id; a case given twice is a UserError."""
    places: dict[str, tuple[Shard, int]] = {}
    for shard in shards:
        for i in range(len(shard)):
            case_id = shard.case_id(i)
            if case_id in places:
                raise UserError(f"{shard.path}: case {case_id!r} occurs twice in the shards. Give every shard once.")
            places[case_id] = (shard, i)
    return places


def require_known(run: Run, places: Mapping[str, tuple[Shard, int]], path: Path) -> None:
    """UserError if the run (of the index at `path`) has a case that no shard holds."""
    if missing := sorted(run.cases.keys() - places.keys()):
        raise UserError(f"{path}: case {missing[0]!r} is in none of the shards. Give its shard as well.")


def describe_case(case: Case) -> dict[str, str]:
    """The columns that every row of a case shares, whichever run it is about."""
    return {"case": case.id, "subject": case.subject_key, "split": case.split}


def score_case(
    case: Case, structures: Sequence[str], run: Run, window: Window, *, legacy: bool = False
) -> Iterator[Score]:
    """All scores of one case; `structures` names the label values of the shard."""
    volume_metrics: VolumeMetrics = {**VOLUME_METRICS, **(LEGACY_VOLUME_METRICS if legacy else {})}
    structure_metrics: StructureMetrics = {**STRUCTURE_METRICS, **(LEGACY_STRUCTURE_METRICS if legacy else {})}
    reconstruction = run.cases.get(case.id)
    try:
        if reconstruction is None:
            raise VolumeError("case was not reconstructed")
        ct_hu = read_on_grid(reconstruction.ct, case)
        if not np.isfinite(ct_hu).all():
            raise VolumeError("reconstruction holds values that are not finite")
        yield from _volume_scores(case, ct_hu, window, volume_metrics)
        yield from _region_scores(case, ct_hu, window)
    except VolumeError as error:
        for name, (unit, *_) in [*volume_metrics.items(), *REGION_METRICS.items()]:
            yield Score(name.format(window=window), "", math.nan, unit, str(error))
    try:
        if reconstruction is None:
            raise VolumeError("case was not reconstructed")
        label = None if reconstruction.label is None else read_on_grid(reconstruction.label, case)
        problem = "the model predicts no labels" if label is None else ""
    except VolumeError as error:
        label, problem = None, str(error)
    annotated = {
        value: name for value, name in enumerate(structures) if value and case.label_status[value] in (CUT, COMPLETE)
    }
    for value, name in annotated.items():
        yield from _structure_scores(case, value, name, label, run, problem, structure_metrics)
    if legacy:
        yield from _label_scores(case, annotated, label, run, problem)


def _volume_scores(case: Case, ct_hu: ndarray, window: Window, metrics: VolumeMetrics) -> Iterator[Score]:
    scores = compare_volumes(case.ct_hu, ct_hu, window, metrics)
    for (metric, value), (unit, _) in zip(scores.items(), metrics.values(), strict=True):
        undefined = "volume is smaller than the metric's window" if metric.startswith("ssim") else "volume is constant"
        yield Score(metric, "", value, unit, undefined if math.isnan(value) else "")


def _region_scores(case: Case, ct_hu: ndarray, window: Window) -> Iterator[Score]:
    """Inside the labelled structures, and on the labelled background; voxels to ignore are in neither."""
    inside = (case.label != 0) & (case.label != IGNORE)
    outside = (case.label == 0) & inside.any()  # without labels nothing is known to lie outside of them
    scores = compare_regions(case.ct_hu, ct_hu, {"inside": inside, "outside": outside}, window)
    for (metric, value), (unit, region, _) in zip(scores.items(), REGION_METRICS.values(), strict=True):
        reason = f"no voxel lies {region} the labelled structures" if inside.any() else "case has no labelled voxel"
        yield Score(metric, "", value, unit, reason if math.isnan(value) else "")


def _structure_scores(
    case: Case,
    value: int,
    name: str,
    label: ndarray | None,
    run: Run,
    problem: str,
    metrics: StructureMetrics,
) -> Iterator[Score]:
    if not problem and name not in run.structures:
        problem = "the model does not know this structure"
    if problem:
        for metric, (unit, _) in metrics.items():
            yield Score(metric, name, math.nan, unit, problem)
        return
    judged = case.label != IGNORE
    true, predicted = case.label == value, (label == run.structures.index(name)) & judged
    reason = ""
    if not true.any():
        reason = "structure has no voxel in the reference"
    elif not predicted.any():
        reason = "structure has no voxel in the reconstruction"
    for metric, score in compare_structures(true, predicted, case.affine, metrics).items():
        yield Score(metric, name, score, metrics[metric][0], reason)


def _label_scores(
    case: Case, annotated: Mapping[int, str], label: ndarray | None, run: Run, problem: str
) -> Iterator[Score]:
    """Of all structures together that model and case have; what is none of them counts as background."""
    known = {value: run.structures.index(name) for value, name in annotated.items() if name in run.structures}
    if not problem and not known:
        problem = "model and case have no structure in common"
    if problem:
        for metric, (unit, _) in LEGACY_LABEL_METRICS.items():
            yield Score(metric, "", math.nan, unit, problem)
        return
    judged = case.label != IGNORE
    reference, found = case.label[judged], label[judged]
    true, predicted = np.zeros((2, reference.size), np.uint8)
    for value, index in known.items():
        true[reference == value] = value
        predicted[found == index] = value
    for metric, (unit, function) in LEGACY_LABEL_METRICS.items():
        score = function(true, predicted)
        yield Score(metric, "", score, unit, "no voxel to compare" if math.isnan(score) else "")


def read_on_grid(path: Path, case: Case) -> ndarray:
    """The reconstructed volume (z, y, x), refused unless its corners lie where those of the true CT lie."""
    array, affine = read_nifti(path)
    if array.shape != case.ct_hu.shape:
        raise VolumeError(f"grid (z, y, x) is {array.shape}, expected {case.ct_hu.shape}")
    apart = np.abs(corners_mm(affine, array.shape) - corners_mm(case.affine, array.shape)).max()
    if not apart <= CORNER_TOLERANCE_MM:
        raise VolumeError(f"corners of the grid lie up to {apart:.3g} mm off those of the true CT")
    return array


def corners_mm(affine: Float[ndarray, "4 4"], shape_zyx: tuple[int, ...]) -> Float[ndarray, "8 3"]:
    """World positions of the eight corner voxels."""
    last = np.array(shape_zyx[::-1]) - 1
    index = np.array([[i, j, k] for k in (0, 1) for j in (0, 1) for i in (0, 1)]) * last
    return index @ affine[:3, :3].T + affine[:3, 3]
