"""The means of a comparison as small dot charts that the report draws in SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from xr2ct.comparison import CEILING, Column, Comparison, Line
from xr2ct.curves import Tick

WIDTH, ROW, CHARACTER = 230, 20, 5.6
LONGEST_NAME = 24


@dataclass(frozen=True)
class Dot:
    """One run, by places on the axis: mean, interval (None without one) and the mean of each of several seeds."""

    run: str
    text: str
    y: float
    mean: float
    interval: tuple[float, float] | None
    seeds: list[float]


@dataclass(frozen=True)
class Panel:
    """One metric of the runs, first on top; names take the `gutter` left of 0, `ceiling` is the place of the true CTs."""

    title: str
    gutter: float
    height: float
    dots: list[Dot]
    ceiling: float | None
    ticks: list[Tick]


def draw_panels(comparison: Comparison, split: str) -> list[Panel]:
    """A panel per metric that a run of this split has a finite mean of."""
    lines = [line for line in comparison.lines if line.split == split and not line.paired]
    panels = []
    for family, column in comparison.columns.items():
        runs = [line for line in lines if line.model != CEILING and _has_mean(line, family)]
        if runs:
            ceiling = [line.found[family].mean for line in lines if line.model == CEILING and _has_mean(line, family)]
            panels.append(_panel(family, column, runs, ceiling))
    return panels


def _has_mean(line: Line, family: str) -> bool:
    return family in line.found and math.isfinite(line.found[family].mean)


def _panel(family: str, column: Column, runs: Sequence[Line], ceiling: Sequence[float]) -> Panel:
    shown = list(ceiling)
    for line in runs:
        summary = line.found[family]
        shown += [summary.mean, summary.low95, summary.high95, *summary.seed_means.values()]
    shown = [value for value in shown if math.isfinite(value)]
    low, high = min(shown), max(shown)
    margin = 0.06 * (high - low) or 0.5 * 10.0**-column.digits
    low, high = low - margin, high + margin

    def place(value: float) -> float:
        return (value - low) / (high - low) * WIDTH

    dots = []
    for i, line in enumerate(runs):
        summary = line.found[family]
        short = line.model[: LONGEST_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"
        dots.append(
            Dot(
                run=line.model if len(line.model) <= LONGEST_NAME else short,
                text=f"{summary.mean:.{column.digits}f}",
                y=(i + 0.5) * ROW,
                mean=place(summary.mean),
                interval=None if math.isnan(summary.low95) else (place(summary.low95), place(summary.high95)),
                seeds=[place(mean) for mean in summary.seed_means.values() if len(summary.seed_means) > 1],
            )
        )
    return Panel(
        title=column.heading,
        gutter=CHARACTER * max(len(dot.run) for dot in dots) + 10,
        height=float(ROW * len(runs)),
        dots=dots,
        ceiling=place(ceiling[0]) if ceiling else None,
        ticks=[Tick(place(value), f"{value:.{digits}f}") for value, digits in round_values(low, high)],
    )


def round_values(low: float, high: float) -> list[tuple[float, int]]:
    """Two to five multiples of 1, 2 or 5 times a power of ten from `low` to `high`, with the decimals they need."""
    power = math.floor(math.log10((high - low) / 2))
    steps = [factor * 10.0**power for factor in (1, 2, 5)]
    ranges = [(step, math.ceil(low / step), math.floor(high / step)) for step in steps]
    step, first, last = [found for found in ranges if found[2] > found[1]][-1]
    return [(n * step, max(0, -power)) for n in range(first, last + 1)]
