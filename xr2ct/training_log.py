"""train.csv: one row per `log_steps`, rewritten whole, so that a resumed run continues exactly where it stood."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from xr2ct.cases import Example, Task
from xr2ct.files import publish
from xr2ct.metrics.dice import dice
from xr2ct.metrics.psnr import psnr
from xr2ct.metrics.window import Window
from xr2ct.models.model import Prediction

LOG = "train.csv"
COLUMNS = (
    "step",
    "seconds",
    "loss",
    "loss_intensity",
    "loss_dice",
    "loss_entropy",
    "learning_rate",
    "watch_psnr_db",
    "watch_dice",
)


@dataclass
class TrainingLog:
    """Rows written so far and the sums of the loss parts since the last one; JSON-able by `asdict`."""

    rows: list[dict[str, int | float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0

    def add(self, parts: dict[str, float]) -> None:
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1

    def close_row(self, step: int, seconds: float, **values: float) -> None:
        """Append a row of the mean loss parts since the last one and `values`."""
        means = {name: value / self.steps for name, value in self.sums.items()}
        self.rows.append({"step": step, "seconds": seconds} | means | values)
        self.sums, self.steps = {}, 0

    def state(self) -> dict:
        return asdict(self)

    def write(self, path: Path) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in self.rows)
        with publish(path) as private:
            private.write_text(text.getvalue(), encoding="utf-8")


def watch_scores(predictions: Sequence[Prediction], examples: Sequence[Example], task: Task) -> dict[str, float]:
    """Mean PSNR (dB, data range = the HU window) and mean Dice over cases and structures seen; {} without examples.

    A glance at the training, not the evaluation: structures a case does not show are left out of its mean.
    """
    psnrs, dices = [], []
    window = Window(*task.window_hu)
    for prediction, example in zip(predictions, examples, strict=True):
        psnrs.append(psnr(*map(window.to_unit, (example.case.ct_hu, prediction.ct_hu)), data_range=1.0))
        for value in np.flatnonzero(example.case.label_status) if prediction.label is not None else ():
            if value and (example.case.label == value).any():
                dices.append(dice(example.case.label == value, prediction.label == value))
    means = {"watch_psnr_db": psnrs, "watch_dice": dices}
    return {name: float(np.mean(values)) for name, values in means.items() if values}
