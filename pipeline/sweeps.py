"""Sweeps and random angles: from the simulators of a config to those that run, and to the angles of one case.

One list of angles in a simulator of the config stands for one simulator per value, named <simulator>_<angle>: `ear` at
30 degrees is `ear_030`, at -50 `ear_m050`, at 7.5 `ear_007p5`. An angle {uniform: [low, high]} is drawn per case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from pipeline.chance import generator
from pipeline.errors import UserError
from pipeline.simulators import Simulator

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


def draw_angles(simulator: Simulator, *, case: str, seed: int) -> Simulator:
    """The simulator of one case: every random angle drawn from its interval.

    The draw depends on the seed and on the names of case and view only: not on the order of cases, nor on the
    simulator, so two simulators with the same views see a case at the same angles.
    """
    views = [
        {key: _draw(value, generator(seed, case, view["name"], key)) for key, value in view.items()}
        if isinstance(view, dict)
        else view
        for view in simulator.views
    ]
    return replace(simulator, views=tuple(views))


def _draw(value: object, rng: np.random.Generator) -> object:
    return float(rng.uniform(*value["uniform"])) if isinstance(value, dict) else value


def expand_simulators(simulators: dict[str, dict]) -> dict[str, dict]:
    """The config's simulators with every sweep replaced by one simulator per value, in the order of its list."""
    expanded: dict[str, dict] = {}
    for name, values in simulators.items():
        for new, expansion in _expand(name, values):
            if new in expanded or (new != name and new in simulators):
                raise UserError(
                    f"config: simulators.{name} expands to {new!r}, which exists already; expected different names. "
                    "Rename one of the simulators, or remove the repeated angle."
                )
            expanded[new] = expansion
    return expanded


def _expand(name: str, values: dict) -> list[tuple[str, dict]]:
    views = values["views"]
    lists = [(at, key) for at, view in enumerate(views) for key, angle in _angles(view) if isinstance(angle, list)]
    if not lists:
        return [(name, values)]
    if len(lists) > 1:
        raise UserError(
            f"config: simulators.{name}.views holds {len(lists)} lists of angles; expected at most one per simulator. "
            "Write one simulator per value of the other list."
        )
    at, key = lists[0]
    expansions = []
    for angle in views[at][key]:
        new = f"{name}_{angle_name(angle)}"
        if not _NAME.fullmatch(new):
            raise UserError(
                f"config: simulators.{name} expands to {new!r}; expected at most 32 lower-case letters, digits and '_'. "
                "Shorten the simulator's name, or the angle."
            )
        one = [{**view, key: angle} if number == at else view for number, view in enumerate(views)]
        expansions.append((new, {**values, "views": one}))
    return expansions


def angle_name(angle_deg: float | int) -> str:
    """An angle as the end of a name: 30 -> 030, -50 -> m050, 7.5 -> 007p5."""
    sign, size = "m" if angle_deg < 0 else "", abs(float(angle_deg))
    whole, _, decimals = f"{size:.6f}".rstrip("0").partition(".")
    return f"{sign}{int(whole):03d}" + (f"p{decimals}" if decimals else "")


def require_no_sweep(views: Iterable[str | dict]) -> None:
    """Refuse a list of angles where one simulator is asked for, not a config that expands it."""
    for view in views:
        for key, angle in _angles(view):
            if isinstance(angle, list):
                raise UserError(
                    f"view {view.get('name')!r}: {key} is the list {angle}; expected one angle here, sweeps belong into a "
                    "config. Run the command once per angle."
                )


def _angles(view: str | dict) -> Iterable[tuple[str, object]]:
    return view.items() if isinstance(view, dict) else ()
