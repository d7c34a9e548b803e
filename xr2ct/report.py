"""One self-contained HTML page of an experiment, and its summary table."""

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from tqdm import tqdm

from xr2ct import pictures
from xr2ct.comparison import (
    BASELINES,
    CEILING,
    COMPARED,
    STRUCTURE,
    Comparison,
    choose_runs,
    compare,
    legacy_rows,
    parts,
    split_notes,
)
from xr2ct.curves import HEIGHT, WIDTH, read_curve
from xr2ct.dots import WIDTH as DOTS_WIDTH
from xr2ct.dots import Panel, draw_panels
from xr2ct.errors import UserError
from xr2ct.files import publish
from xr2ct.gallery import CasePictures, case_pictures
from xr2ct.poster import write_poster
from xr2ct.reconstructions import Run, read_index
from xr2ct.shards import Shard, open_shards
from xr2ct.structure_tables import structure_tables
from xr2ct.summary import SPLITS, rank, read_scores, summarize, write_legacy, write_summary
from xr2ct.summary_text import format_structures, format_table, legacy_table

PICTURED_PER_SPLIT = 8
NO_NUMBER = "\N{EN DASH}"
PACKAGES = ("xr2ct", "numpy", "scipy", "h5py", "nibabel", "torch", "pillow", "jinja2")


def report(
    *,
    shards: Sequence[Path],
    evaluations: Sequence[Path],
    reconstructions: Sequence[Path],
    training: Sequence[Path] = (),
    cohort: Path | None = None,
    cases_open: int = 3,
    picture: Path | None = None,
    figures: Sequence[Path] = (),
    tables: Sequence[tuple[str, Sequence[str]]] = (),
    out: Path,
) -> str:
    """Write the page, its CSVs beside it and, if asked for, one picture; the summary as aligned text tables.

    `tables` are titles and the names of runs that shall stand beside each other, after the table of all runs; the baselines
    among the `reconstructions` stand in each of them.
    """
    opened = sorted(open_shards(shards), key=lambda shard: rank(shard.attrs["split"]))
    scores = read_scores(evaluations)
    summaries = summarize(scores)
    legacy = summarize(read_scores(evaluations, legacy=True))
    runs = _first_seeds([read_index(path) for path in reconstructions])
    everything = compare(summaries)
    compared = [
        compare(choose_runs(summaries, title, names, _baselines(runs)), title=title, columns=COMPARED)
        for title, names in tables
    ]
    by_structure = structure_tables(summaries)
    page = {
        "title": _experiment_name(opened),
        "everything": everything,
        "compared": [(comparison, _figures(comparison)) for comparison in compared],
        "seeds": max((line.n_seeds for line in everything.lines), default=0),
        "ceiling": CEILING,
        "notes": split_notes(everything.lines),
        "splits": SPLITS,
        "structure_tables": by_structure,
        "structure_columns": STRUCTURE,
        "legacy": legacy_rows(legacy),
        "figures": [(path.stem, _embedded(path)) for path in figures],
        "groups": _gallery(opened, runs, cases_open),
        "scores": _scores_by_case(scores, runs),
        "sources": _sources(opened),
        "simulators": _simulators(opened),
        "structures": _structures(opened),
        "runs": runs,
        "curves": [read_curve(path) for path in training],
        "chart_size": (WIDTH, HEIGHT),
        "dots_width": DOTS_WIDTH,
        "cohort": _table_rows(cohort / "cases.tsv") if cohort else None,
        "quarantine": _table_rows(cohort / "quarantine.tsv") if cohort else None,
        "versions": _versions(opened),
        "metrics": list(dict.fromkeys((summary.metric, summary.unit) for summary in summaries)),
        "display_hu": pictures.DISPLAY_HU,
        "error_hu": pictures.ERROR_HU,
        "error_gradient": pictures.error_gradient(),
    }
    with publish(out) as temporary:
        temporary.write_text(render(page), encoding="utf-8")
    write_summary(out.with_name("summary.csv"), summaries)
    write_legacy(out.with_name("legacy.csv"), legacy)
    if picture:
        write_poster(picture, next(filter(len, opened), opened[0]), runs)
    text = [*map(format_table, [everything, *compared]), *(format_structures(one) for one in by_structure if one.judge)]
    return "\n\n\n".join([*text, *([legacy_table(legacy)] if legacy else [])])


def render(page: dict[str, Any]) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value, digits: NO_NUMBER if math.isnan(value) else f"{value:.{digits}f}"
    environment.filters["parts"] = parts
    template = files("xr2ct").joinpath("report.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(page)


def _first_seeds(runs: Sequence[Run]) -> list[Run]:
    """Of runs that differ in their seed only the first given, which is the one to show in pictures."""
    return list({(run.name, run.simulator): run for run in reversed(runs)}.values())[::-1]


def _baselines(runs: Sequence[Run]) -> list[str]:
    """The names of the runs that every other has to beat, by their models."""
    return list(dict.fromkeys(run.name for model in BASELINES for run in runs if run.model == model))


def _figures(comparison: Comparison) -> list[tuple[str, list[Panel]]]:
    """The dot charts of each split."""
    return [(split, draw_panels(comparison, split)) for split in dict.fromkeys(line.split for line in comparison.lines)]


def _experiment_name(shards: Sequence[Shard]) -> str:
    try:
        names = {str(json.loads(shard.attrs["config_json"])["name"]) for shard in shards}
    except (KeyError, TypeError, ValueError):  # another project's shards need not name theirs
        return ""
    return names.pop() if len(names) == 1 else ""


@dataclass(frozen=True)
class Group:
    """The cases of one split: some open, some folded, and how many are not pictured."""

    split: str
    open: list[CasePictures]
    folded: list[CasePictures]
    n_without_pictures: int


def _gallery(shards: Sequence[Shard], runs: Sequence[Run], cases_open: int) -> list[Group]:
    places: dict[str, list[tuple[Shard, int]]] = {}
    for shard in shards:
        places.setdefault(shard.attrs["split"], []).extend((shard, i) for i in range(len(shard)))
    shown = {split: members[: max(PICTURED_PER_SPLIT, cases_open)] for split, members in places.items()}
    bar = tqdm(total=sum(map(len, shown.values())), desc="report", unit="case")
    groups = []
    for split, members in shown.items():
        made = []
        for shard, i in members:
            made.append(case_pictures(shard, i, runs))
            bar.update()
        groups.append(Group(split, made[:cases_open], made[cases_open:], len(places[split]) - len(members)))
    bar.close()
    return groups


def _scores_by_case(scores: Sequence[dict[str, str]], runs: Sequence[Run]) -> dict[tuple[str, str], dict[str, float]]:
    """(case, run) -> metric family -> value of the pictured seed (and of the true CT), structures as their mean."""
    pictured = {(run.name, run.seed) for run in runs} | {(CEILING, "")}
    collected: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in scores:
        family = row["metric"].split("_")[0]
        if (row["model"], row["seed"]) in pictured:
            collected.setdefault((row["case"], row["model"]), {}).setdefault(family, []).append(float(row["value"]))
    return {
        key: {family: float(np.mean(kept)) for family, values in found.items() if (kept := _numbers(values))}
        for key, found in collected.items()
    }


def _numbers(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _sources(shards: Sequence[Shard]) -> list[dict[str, Any]]:
    """Per data set what the licence asks to be shown, and its cases and patients per split."""
    sources: dict[str, dict[str, Any]] = {}
    for shard in shards:
        source = sources.setdefault(shard.attrs["dataset"], {"counts": {}, **shard.attrs})
        patients, ids = source["counts"].setdefault(shard.attrs["split"], (set(), set()))
        patients.update(shard.subject_key(i) for i in range(len(shard)))
        ids.update(shard.case_id(i) for i in range(len(shard)))
    return list(sources.values())


def _simulators(shards: Sequence[Shard]) -> list[dict[str, Any]]:
    """Geometry from the matrices of the first case, physics from the attributes."""
    simulators: dict[str, dict[str, Any]] = {}
    for shard in shards:
        for name in shard.simulators:
            if name in simulators or not len(shard):
                continue
            xray = shard.xray(0, name)
            origin, step_v, step_u = xray.detector_mm[0]
            normal = np.cross(step_u, step_v) / np.linalg.norm(np.cross(step_u, step_v))
            source = xray.source_mm[0]
            rows, columns = xray.image.shape[1:]
            simulators[name] = {
                "name": name,
                "views": xray.views,
                "detector": f"{rows} x {columns} pixels of {_length(step_v)} x {_length(step_u)} mm",
                "source": f"focal spot {abs(normal @ (source[:3] - origin)):.0f} mm from the detector"
                if source[3]
                else "parallel rays",
                "attrs": xray.attrs,
            }
    return list(simulators.values())


def _embedded(path: Path) -> str:
    """A PNG file inside the page."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}). Give the PNG of `pipeline radiographs`."
        ) from error
    if not content.startswith(b"\x89PNG\r\n"):
        raise UserError(f"{path}: is no PNG file. Give the PNG of `pipeline radiographs`.")
    return pictures.png_uri(content)


def _length(step: np.ndarray) -> str:
    return f"{np.linalg.norm(step):.3g}"


def _structures(shards: Sequence[Shard]) -> list[tuple[str, str]]:
    names = dict.fromkeys(shard.structures for shard in shards)
    return [(name, pictures.colour(value)) for value, name in list(enumerate(next(iter(names))))[1:]]


def _table_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a tab-separated table of the cohort."""
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines()
        return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Expected the table of the cohort stage.") from error


def _versions(shards: Sequence[Shard]) -> list[tuple[str, str]]:
    found = [("Python", platform.python_version())]
    for package in PACKAGES:
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            found.append((package, "not installed"))
    return [*found, ("shards by", ", ".join(sorted({shard.attrs["generator"] for shard in shards})))]
