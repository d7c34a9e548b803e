"""Which mistakes of reading two images the re-projection notices: `python -m benchmarks.two_images`.

Reads images of known cases in every way that people mistake, reconstructs, and prints what `xr2ct reconstruct --pa --lat`
would: mean relative RMS of both views, the larger of the two, whether a bound warns, and whether the mistake is named.
The demo of the README has made what it needs by default; about 4 s a cell on 2 cores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from xr2ct.cases import Cases
from xr2ct.checkpoint import load_checkpoint
from xr2ct.device import choose_device
from xr2ct.models.model import Model
from xr2ct.plausibility import Input, attempt, better_readings, mean_rms, rescaled, warnings_of
from xr2ct.shards import open_shards
from xr2ct.train import build_trained
from xr2ct.two_images import training_level
from xr2ct.views import Geometry, trained_geometry

SHARDS = (
    "results/shards/lidc-idri/family-00000-of-00001.h5",
    "results/shards/totalsegmentator-example/test-00000-of-00001.h5",
    "results/shards/lung-pet-ct-dx/test-00000-of-00001.h5",
    "results/shards/totalsegmentator-example/validation-00000-of-00001.h5",
)

Read = tuple[list[Input], Geometry]


def seen(inputs: Sequence[Input], number: int, change: Callable[[np.ndarray], np.ndarray]) -> list[Input]:
    """The inputs with one image changed."""
    return [replace(one, image=change(one.image)) if i == number else one for i, one in enumerate(inputs)]


def larger(placed: Geometry, numbers: Sequence[int], scale: float) -> Geometry:
    """The pixels of some views taken `scale` times as large as they are."""
    matrices = placed.projection.copy()
    matrices[list(numbers)] = rescaled(placed, scale)[list(numbers)]
    return replace(placed, projection=matrices)


def mistakes(
    inputs: list[Input], placed: Geometry, levels: Sequence[tuple[float, float]]
) -> dict[str, tuple[Read, str]]:
    """Words -> what the mistake makes of images and geometry, and how a warning would name its undoing."""
    first, second = placed.views
    negative = [Input(-one.image, level) for one, level in zip(inputs, levels, strict=True)]
    return {
        "right": ((inputs, placed), ""),
        f"{first} mirrored": ((seen(inputs, 0, np.fliplr), placed), f"{first} mirrored"),
        f"{second} mirrored": ((seen(inputs, 1, np.fliplr), placed), f"{second} mirrored"),
        "both upside down": ((seen(seen(inputs, 0, np.flipud), 1, np.flipud), placed), "upside down"),
        f"{second} upside down": ((seen(inputs, 1, np.flipud), placed), ""),
        "exchanged": ((inputs[::-1], placed), "exchanged"),
        "pixels taken 10 % too large": ((inputs, larger(placed, (0, 1), 1.1)), "10 % smaller"),
        "pixels taken 10 % too small": ((inputs, larger(placed, (0, 1), 1 / 1.1)), "10 % larger"),
        f"{second}'s pixels alone 10 % too large": ((inputs, larger(placed, (1,), 1.1)), ""),
        "line integrals 10 % too high": ((seen(seen(inputs, 0, lambda a: 1.1 * a), 1, lambda a: 1.1 * a), placed), ""),
        f"{second} 5 % too low": ((seen(inputs, 1, lambda a: 0.95 * a), placed), ""),
        "bone taken dark for bright": ((negative, placed), ""),
    }


def cell(model: Model, read: Read, trained: Geometry, cure: str) -> str:
    """RMS of both views and what the command would say."""
    inputs, placed = read
    fits = attempt(model, inputs, placed, trained)[1]
    said = ["warned"] if warnings_of(fits, placed.views) else []
    told = better_readings(model, inputs, placed, trained, fits)
    if told:
        said.append("named" if cure and cure in told[0] else f"taken for {told[0].split('with ')[1].split(':')[0]}")
    worst = max(one.relative_rms for one in fits)
    return " ".join([f"{mean_rms(fits):.2f} ({worst:.2f})", ", ".join(said)]).strip()


def table(checkpoint: Path, shards: Sequence[Path], case: int) -> list[list[str]]:
    """The first line is the header: one column per shard, of its case number `case`, one row per mistake."""
    content = load_checkpoint(checkpoint)
    model, task = build_trained(content)
    model.to(choose_device("auto", None))
    trained = trained_geometry(content, task, checkpoint)
    levels = [training_level(model, number) for number in range(len(trained.views))]
    columns: list[dict[str, str]] = []
    names = []
    for path in shards:
        example = Cases(open_shards([path]), task.simulator)[case]
        names.append(f"{example.case.split}: {example.case.id}")
        inputs = [Input(image.astype(np.float64), None) for image in example.xray.image]
        rows = mistakes(inputs, trained, levels)
        columns.append(
            {words: cell(model, read, trained, cure) for words, (read, cure) in tqdm(rows.items(), desc=names[-1])}
        )
    return [["images", *names], *([words, *(column[words] for column in columns)] for words in columns[0])]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("results/train/spider/model.pt"), help="of two views")
    parser.add_argument(
        "--shards", type=Path, nargs="+", default=[Path(path) for path in SHARDS], help="one column each"
    )
    parser.add_argument("--case", type=int, default=0, help="which case of each shard (0: the first)")
    options = parser.parse_args(arguments)
    header, *rows = table(options.checkpoint, options.shards, options.case)
    print("|", " | ".join(header), "|")
    print("|" + "---|" * len(header))
    for row in rows:
        print("|", " | ".join(row), "|")
    return 0


if __name__ == "__main__":
    sys.exit(main())
