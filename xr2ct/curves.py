"""Training logs as small line charts that the report draws in SVG."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xr2ct.errors import UserError

WIDTH, HEIGHT = 340, 150
CHARTS = {
    "loss": ("loss (log scale)", True),
    "watch_psnr_db": ("PSNR of the watched cases, dB", False),
    "watch_dice": ("Dice of the watched cases", False),
}
"""Column of train.csv -> title, and whether the axis is logarithmic."""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its place in chart units and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """One line from (0, HEIGHT) at the lower left to (WIDTH, 0); `points` is ready for an SVG polyline."""

    title: str
    points: str
    last: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]


@dataclass(frozen=True)
class Curve:
    """The charts of one run; none for a model that is not trained step by step."""

    run: str
    steps: int
    minutes: float
    charts: list[Chart]


def read_curve(path: Path) -> Curve:
    """Curve of a train.csv; its folder's name is the run."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(file)]
        steps, seconds = [row["step"] for row in rows], [row["seconds"] for row in rows]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error!r}). Expected the train.csv of a training.") from error
    charts = []
    for column, (title, logarithmic) in CHARTS.items():
        pairs = [(row["step"], row[column]) for row in rows if column in row]
        if len(pairs) > 1 and all(math.isfinite(y) and (y > 0 or not logarithmic) for _, y in pairs):
            charts.append(_chart(title, pairs, logarithmic))
    return Curve(path.resolve().parent.name, int(max(steps, default=0)), max(seconds, default=0.0) / 60, charts)


def _chart(title: str, pairs: list[tuple[float, float]], logarithmic: bool) -> Chart:
    x, y = np.array(pairs).T
    scaled = np.log10(y) if logarithmic else y
    low, high = float(scaled.min()), float(scaled.max())
    margin = 0.06 * (high - low) or 0.5
    low, high = low - margin, high + margin
    across = (x - x[0]) / (x[-1] - x[0] or 1) * WIDTH
    up = (high - scaled) / (high - low) * HEIGHT
    y_ticks = []
    for share in (0.1, 0.5, 0.9):
        value = low + share * (high - low)
        y_ticks.append(Tick((1 - share) * HEIGHT, f"{10**value if logarithmic else value:.3g}"))
    return Chart(
        title=title,
        points=" ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, up, strict=True)),
        last=f"{y[-1]:.3g}",
        x_ticks=[Tick(0.0, f"{x[0]:g}"), Tick(float(WIDTH), f"{x[-1]:g} steps")],
        y_ticks=y_ticks,
    )
