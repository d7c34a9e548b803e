"""DeepDRR beside our DeepDRR-compatible mode: same CT, views and spectrum, noise off. It has not been run yet: it needs an
NVIDIA GPU and the environment pipeline/envs/deepdrr.yaml, in it `pip install --no-deps --editable .` for our C kernels.

    python -m benchmarks.deepdrr --ct ct.nii.gz        (without --ct: the phantom of benchmarks/scene.py)

Writes results/benchmarks/deepdrr.png (per view: DeepDRR, ours, 20 x their difference around grey) and prints the mean and
largest difference as a part of DeepDRR's dynamic range, and the time per image. Goal: mean below 1 %.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image

from benchmarks import scene
from pipeline.errors import UserError
from pipeline.project import simulate
from pipeline.projectors.deepdrr import SPECTRA, project_deepdrr
from pipeline.simulators import Simulator

_SIZE = 256
_GOAL = 0.01
_MANY = 10


def side_by_side(theirs: Float[ndarray, "view v u"], our: Float[ndarray, "view v u"]) -> UInt8[ndarray, "row column"]:
    """One row per view: theirs, ours, and 20 x ours less theirs with grey for none; dark where little arrives."""
    low, high = theirs.min(), theirs.max()
    panels = [(image - low) / (high - low) for image in (theirs, our)] + [0.5 + 20 * (our - theirs) / (high - low)]
    rows = [np.concatenate([panel[view] for panel in panels], axis=1) for view in range(len(theirs))]
    return np.round(255 * np.clip(np.concatenate(rows), 0, 1)).astype(np.uint8)


def compare(ct: Path | None, spectrum: str, picture: Path) -> None:
    """Draw both, write the picture, print the differences and the times."""
    ct_hu = scene.patient(_SIZE) if ct is None else scene.load_ct(ct, _SIZE)
    affine = scene.centred_affine(ct_hu.shape)
    views = scene.cone_views(["PA", "LAT"], _SIZE, 1.5)

    def seconds(views: list) -> tuple[float, ndarray]:
        start = time.perf_counter()
        images = project_deepdrr(ct_hu, affine, views, spectrum=spectrum)
        return time.perf_counter() - start, images

    few, theirs = seconds(views)
    many, _ = seconds(views * _MANY)
    compatible = Simulator(
        **{"beam": "cone", "backend": "joseph", "views": ("PA", "LAT"), "detector_px": (_SIZE, _SIZE), "pixel_mm": 1.5},
        **{"sdd_mm": 1020.0, "sod_mm": 530.0, "energy_kev": 60.0, "physics": "realistic", "spectrum": spectrum},
        **{"materials": "deepdrr-v1", "photons": 0, "psf_px": 0, "scatter": "none"},
    )
    simulate(ct_hu, affine, compatible)
    start = time.perf_counter()
    our = np.exp(-simulate(ct_hu, affine, compatible).image.astype(np.float64))
    ours_ms = (time.perf_counter() - start) / len(views) * 1e3

    difference = np.abs(our - theirs) / (theirs.max() - theirs.min())
    for number, view in enumerate(views):
        print(f"{view.name}: mean {difference[number].mean():.2%}, largest {difference[number].max():.2%} of the range")
    theirs_ms = (many - few) / (len(views) * (_MANY - 1)) * 1e3
    print(f"DeepDRR {theirs_ms:.1f} ms per image once set up, {few / len(views) * 1e3:.0f} ms with its set-up (wall)")
    print(f"ours    {ours_ms:.1f} ms per image from int16 HU (wall)")
    print(f"goal, mean below {_GOAL:.0%}: {'yes' if difference.mean() < _GOAL else 'NO'}")
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(side_by_side(theirs, our)).save(picture)
    print(f"picture: {picture}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 2 and a sentence where DeepDRR or its GPU is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deepdrr", description=__doc__.split("\n\n")[0])
    parser.add_argument("--ct", type=Path, help="a NIfTI CT: its middle 256^3 voxels as if of 1 mm")
    parser.add_argument("--spectrum", choices=SPECTRA, default="90KV_AL40")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/deepdrr.png"))
    settings = parser.parse_args(arguments)
    try:
        compare(settings.ct, settings.spectrum, settings.out)
    except UserError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
