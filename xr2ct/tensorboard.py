"""The training log for TensorBoard, beside train.csv: `tensorboard --logdir results/train`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from xr2ct.errors import UserError

FOLDER = "tensorboard"


class Board:
    """An event file under `out`/tensorboard; what an earlier process wrote from `start` on is superseded."""

    def __init__(self, out: Path, start: int):
        if start == 0:
            for path in (out / FOLDER).glob("events.*"):
                path.unlink()
        self._writer: Any = summary_writer()(log_dir=str(out / FOLDER), purge_step=start)

    def row(self, row: Mapping[str, int | float]) -> None:
        """The values of one row of train.csv under their column names."""
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def picture(self, step: int, image: Image.Image) -> None:
        self._writer.add_image("watch", np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


def summary_writer() -> type:
    """torch's writer class; a UserError where the package tensorboard is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        todo = "Install it with: pip install 'xr2ct[tensorboard]', or leave --tensorboard out."
        raise UserError(f"--tensorboard needs the package tensorboard, which cannot be imported. {todo}") from error
    return SummaryWriter
