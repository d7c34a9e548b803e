"""What a training shows while it runs: train.csv, pictures of one watched case and, if wanted, TensorBoard."""

from pathlib import Path

from PIL import Image

from xr2ct.distributed import rank
from xr2ct.files import publish
from xr2ct.pictures import png
from xr2ct.tensorboard import Board
from xr2ct.training_log import LOG, TrainingLog

PICTURES = "watch"


class Journal:
    """Writes under `out`; of several processes only the first one does. What a former training left goes at step 0."""

    def __init__(self, out: Path, *, start: int, tensorboard: bool):
        self._out, self._writes = out, rank() == 0
        self._board = Board(out, start) if tensorboard and self._writes else None
        if start == 0 and self._writes:
            for path in (out / PICTURES).glob("step-*.png"):
                path.unlink()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        if self._board:
            self._board.close()

    def row(self, log: TrainingLog) -> None:
        """The newest row of the log."""
        if self._writes:
            log.write(self._out / LOG)
        if self._board:
            self._board.row(log.rows[-1])

    def picture(self, step: int, image: Image.Image) -> None:
        """watch/step-000200.png after step 200."""
        if self._writes:
            with publish(self._out / PICTURES / f"step-{step:06d}.png") as private:
                private.write_bytes(png(image))
        if self._board:
            self._board.picture(step, image)
