"""train.csv: one row per `log_steps`, rewritten whole, so that a resumed run continues exactly where it stood."""

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from xr2ct.cases import Example, Task
from xr2ct.files import publish
from xr2ct.metrics.dice import dice
from xr2ct.metrics.psnr import psnr
from xr2ct.metrics.window import Window
from xr2ct.models.model import Prediction
from xr2ct.shards import IGNORE, NOT_ANNOTATED

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

    def summary(self) -> str:
        """The last watched scores and, if another round had a better PSNR, that one; "" where nothing was watched."""
        watched = [row for row in self.rows if "watch_psnr_db" in row]
        if not watched:
            return ""
        last, best = watched[-1], max(watched, key=lambda row: row["watch_psnr_db"])
        said = f"watched PSNR {last['watch_psnr_db']:.2f} dB"
        said += f", Dice {last['watch_dice']:.3f}" if "watch_dice" in last else ""
        better = best["watch_psnr_db"] > last["watch_psnr_db"]
        return said + (f" (best {best['watch_psnr_db']:.2f} dB at step {best['step']})" if better else "")

    def write(self, path: Path) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in self.rows)
        with publish(path) as private:
            private.write_text(text.getvalue(), encoding="utf-8")


def watch_scores(
    predictions: Sequence[Prediction], examples: Sequence[Example], task: Task, known: Collection[str]
) -> dict[str, float]:
    """Mean PSNR (dB, data range = the HU window) and mean Dice over cases and structures; what has none is left out.

    A glance at the training, not the evaluation: of a case count the structures that it is annotated for and shows, and
    that the model knows.
    """
    psnrs, dices = [], []
    window = Window(*task.window_hu)
    learned = [value for value, name in enumerate(task.structures) if value and name in known]
    for prediction, example in zip(predictions, examples, strict=True):
        psnrs.append(psnr(*map(window.to_unit, (example.case.ct_hu, prediction.ct_hu)), data_range=1.0))
        true, judged = example.case.label, example.case.label != IGNORE
        for value in learned if prediction.label is not None else ():
            if example.case.label_status[value] != NOT_ANNOTATED and (true == value).any():
                dices.append(dice(true == value, (prediction.label == value) & judged))
    means = {"watch_psnr_db": psnrs, "watch_dice": dices}
    return {name: float(np.mean(values)) for name, values in means.items() if values}
