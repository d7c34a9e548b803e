"""From the runs of a config to those that are trained: one per seed, each knowing the trained run that it begins from."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pipeline.errors import UserError

NOTHING_TO_LEARN = ("mean", "nearest", "backprojection")
"""Models that are computed, not trained: no seed changes them, and nothing can begin from them."""
TRUE_CT = "true-ct"
"""Not a run: what the judge's scores of the CTs themselves are filed under."""
NO_STRUCTURES = "none"
"""In a run's settings: intensity only."""
_SEED_ENDING = re.compile(r"-seed\d+$")


def expand_runs(runs: dict[str, dict], *, seed: int) -> dict[str, dict]:
    """The config's runs with one run <name>-seed<n> for each of its `seeds`; a run without them has the experiment's seed.

    `start` becomes the name of the expanded run to begin from, "" for none.
    """
    for name in runs:
        if name == TRUE_CT or _SEED_ENDING.search(name):
            raise UserError(
                f"config: runs.{name} has a name that the workflow gives itself ({TRUE_CT}, or an ending -seed<number>); "
                "expected another one. Rename the run."
            )
    expanded = {}
    for name, run in runs.items():
        rest = {
            key: int(value) if key == "limit" else value for key, value in run.items() if key != "seeds"
        }  # 2.0 is 2
        for number in run.get("seeds", [None]):
            start = _start(name, run, runs, number)
            if number is None:
                expanded[name] = {**rest, "start": start, "seed": seed}
            else:
                expanded[f"{name}-seed{int(number)}"] = {**rest, "start": start, "seed": int(number)}
    _refuse_circles(expanded)
    return expanded


def _start(name: str, run: dict, runs: dict[str, dict], seed: int | None) -> str:
    """The expanded name of the run to begin from: of the same seed where that run has seeds."""
    start = run.get("start")
    if start is None:
        return ""
    where = f"config: runs.{name}.start is {start!r}"
    if start not in runs:
        raise UserError(f"{where}; expected one of the runs: {', '.join(runs)}.")
    other = runs[start]
    if run["model"] in NOTHING_TO_LEARN or other["model"] != run["model"]:
        raise UserError(
            f"{where}, a run of model {other['model']}, for a run of model {run['model']}; expected two runs of one model "
            "that is trained. Remove start, or name another run."
        )
    if other["simulator"] != run["simulator"]:
        raise UserError(
            f"{where}, which sees the X-rays of {other['simulator']}, but runs.{name} those of {run['simulator']}; expected "
            "the same simulator. Remove start, or name another run."
        )
    if "seeds" not in other:
        return start
    if seed not in other["seeds"]:
        given = "no seeds" if seed is None else f"seed {seed}"
        known = ", ".join(map(str, other["seeds"]))
        raise UserError(
            f"{where}, which has the seeds {known}, but runs.{name} has {given}; expected seeds out of those. "
            f"Set runs.{name}.seeds."
        )
    return f"{start}-seed{int(seed)}"


def _refuse_circles(runs: dict[str, dict]) -> None:
    for name in runs:
        path = [name]
        while start := runs[path[-1]]["start"]:
            path.append(start)
            if start in path[:-1]:
                raise UserError(
                    f"config: runs begin from each other in a circle: {' <- '.join(path)}. Remove one of their `start`."
                )


def check_runs(runs: Mapping[str, dict], *, structures: list[str], tables: Mapping[str, list[str]]) -> None:
    """What runs and tables name must be there: settings of the model, their structures, runs of tables (without seeds)."""
    for name, run in runs.items():
        if run["settings"] and run["model"] in NOTHING_TO_LEARN:
            raise UserError(
                f"config: runs.{name} has settings, but model {run['model']} has none to choose. Remove them."
            )
        chosen = run["settings"].get("structures", [])
        if not isinstance(chosen, list):
            raise UserError(
                f"config: runs.{name}.settings.structures is {chosen!r}; expected a list of structures, [] for all, "
                f"[{NO_STRUCTURES}] for none."
            )
        unknown = [one for one in chosen if one not in structures and chosen != [NO_STRUCTURES]]
        if unknown:
            raise UserError(
                f"config: runs.{name}.settings.structures names {unknown[0]!r}; expected some of: {', '.join(structures)}, "
                f"or [{NO_STRUCTURES}] alone."
            )
    for title, names in tables.items():
        if not title.strip() or title.startswith("-"):
            raise UserError(
                f"config: tables has the title {title!r}; expected words that do not begin with '-'. Rename the table."
            )
        for name in names:
            if name not in runs:
                raise UserError(
                    f"config: tables.{title} names the run {name!r}; expected some of: {', '.join(runs)} (without seeds)."
                )
