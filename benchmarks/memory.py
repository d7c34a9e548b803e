"""One projection in a process of its own: prints the peak memory that it added, in units of the float32 volume."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np

from benchmarks import scene
from pipeline.project import simulate
from pipeline.projectors import get_projector
from pipeline.simulators import Simulator


def peak_bytes() -> int:
    """Largest resident memory of this program so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the process held before it became this program
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(case: str, path: str) -> None:
    """`case` is warm (float32 in the layout the kernels read) or cold (int16 HU); `path` a .npy of HU."""
    size = np.load(path, mmap_mode="r").shape[0]
    simulator = Simulator("cone", "joseph", ("PA", "LAT"), (size, size), 1.5, 1020.0, 530.0, 60.0)
    # Imports, tables and the kernels' library are not the volume's cost: one tiny run first.
    simulate(np.zeros((4, 4, 4), np.int16), scene.centred_affine((4, 4, 4)), simulator)
    affine = scene.centred_affine((size,) * 3)
    if case == "warm":
        volume = np.empty((size,) * 3, np.float32, order="F")
        for number, plane in enumerate(np.load(path, mmap_mode="r")):
            volume[number] = scene.attenuation(plane[None])[0]
        views, project = scene.cone_views(["PA", "LAT"], size, 1.5), get_projector("cone", "joseph")
        before = peak_bytes()
        project(volume, affine, views)
    else:
        volume = np.load(Path(path))
        before = peak_bytes()
        simulate(volume, affine, simulator)
    print((peak_bytes() - before) / (4 * size**3))


if __name__ == "__main__":
    main(*sys.argv[1:])
