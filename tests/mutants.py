"""Break one convention of the code at a time and see whether a test notices: `python tests/mutants.py [name ...]`.

Every mutant is applied to a copy of the repository; the tests named beside it must fail there. Exit code 1 if one lives.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("pipeline", "xr2ct", "tests", "resources", "pyproject.toml", "config.yaml", "Snakefile")


@dataclass(frozen=True)
class Mutant:
    """Replace `old` (which must occur) by `new` in `file`; `tests` are run against it."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = (
    Mutant(
        "image axes swapped: the stored image is transposed",
        "pipeline/projectors/trilinear.py",
        "return line_integral.reshape(view.shape)",
        "return line_integral.reshape(view.shape[::-1]).T",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "image axes swapped: x and z of the volume",
        "pipeline/projectors/trilinear.py",
        "xyz[..., ::-1].reshape",
        "xyz.reshape",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "grid size order reversed",
        "pipeline/projectors/trilinear.py",
        "np.array(padded.shape[::-1]) - 1.0",
        "np.array(padded.shape) - 1.0",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "half voxel dropped: centre of the cube",
        "pipeline/resample.py",
        "spacing_mm * (cube - 1) / 2",
        "spacing_mm * cube / 2",
        "tests/pipeline/test_resample.py",
    ),
    Mutant(
        "half voxel dropped: isocentre of the simulator",
        "pipeline/project.py",
        "far / 2, 1.0",
        "(far + 1) / 2, 1.0",
        "tests/pipeline/test_project.py",
    ),
    Mutant(
        "half pixel dropped: middle of the detector",
        "pipeline/geometry.py",
        "(columns - 1) / 2 * step_u",
        "columns / 2 * step_u",
        "tests/pipeline/test_geometry.py",
    ),
    Mutant(
        "half pixel dropped: axis sum",
        "pipeline/projectors/axis_sum.py",
        "+ to_index[:3, 3]\n    rows_columns",
        "+ to_index[:3, 3] - 0.5\n    rows_columns",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "u and v swapped in the projection matrix",
        "pipeline/geometry.py",
        "np.stack([self.step_u_mm, self.step_v_mm, self.origin_mm - source], axis=1)",
        "np.stack([self.step_v_mm, self.step_u_mm, self.origin_mm - source], axis=1)",
        "tests/pipeline/test_geometry.py",
    ),
    Mutant(
        "u and v swapped in detector_mm",
        "pipeline/geometry.py",
        "np.stack([self.origin_mm, self.step_v_mm, self.step_u_mm])",
        "np.stack([self.origin_mm, self.step_u_mm, self.step_v_mm])",
        "tests/pipeline/test_project.py",
    ),
    Mutant(
        "PA made AP",
        "pipeline/geometry.py",
        '"PA": (0.0, 0.0)',
        '"PA": (180.0, 0.0)',
        "tests/pipeline/test_geometry.py",
    ),
    Mutant(
        "left and right mirrored in the file's orientation",
        "pipeline/resample.py",
        "turned = nib.apply_orientation(data, orientation)",
        "turned = nib.apply_orientation(data, orientation)[::-1]",
        "tests/pipeline/test_resample.py",
    ),
    Mutant(
        "left and right mirrored on the detector",
        "pipeline/geometry.py",
        "[-1, 0, 0], [0, 0, -1]])",
        "[1, 0, 0], [0, 0, -1]])",
        "tests/pipeline/test_geometry.py",
    ),
    Mutant(
        "step length forgotten",
        "pipeline/projectors/trilinear.py",
        ".sum(axis=1) * step_mm",
        ".sum(axis=1)",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "slice spacing forgotten in the axis sum",
        "pipeline/projectors/axis_sum.py",
        ".sum(axis=2 - along) / np.abs(beam_index[along])",
        ".sum(axis=2 - along)",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "mu times ten",
        "pipeline/physics.py",
        "float(np.exp(log_mu)) / 10.0",
        "float(np.exp(log_mu))",
        "tests/pipeline/test_physics.py",
    ),
    Mutant(
        "slope dropped",
        "pipeline/read/values.py",
        "slope, intercept = int(stored.slope), int(stored.intercept)",
        "slope, intercept = 1, int(stored.intercept)",
        "tests/pipeline/test_read_nifti.py",
    ),
    Mutant(
        "intercept dropped",
        "pipeline/read/values.py",
        "astype(np.int64) * slope + intercept",
        "astype(np.int64) * slope",
        "tests/pipeline/test_read_nifti.py",
    ),
    Mutant(
        "label and CT resampled with different affines",
        "pipeline/resample.py",
        "shifted[:3, 3] = (affine @ np.append(low, 1.0))[:3]",
        "shifted[:3, 3] = affine[:3, 3]",
        "tests/pipeline/test_resample.py",
    ),
    Mutant(
        "view order swapped",
        "pipeline/project.py",
        "image=np.stack([project(mu, affine, view) for view in views])",
        "image=np.stack([project(mu, affine, view) for view in reversed(views)])",
        "tests/pipeline/test_project.py",
    ),
    Mutant(
        "CT and labels deformed by different fields",
        "pipeline/deform.py",
        "moved = map_coordinates(label, at,",
        "moved = map_coordinates(label, at + 1.0,",
        "tests/pipeline/test_deform.py",
    ),
    Mutant(
        "derived case rotated about a corner",
        "pipeline/deform.py",
        "centred = grid - grid.reshape(3, -1).mean(axis=1)[:, None, None, None]",
        "centred = grid",
        "tests/pipeline/test_deform.py",
    ),
    Mutant(
        "derived CT interpolated linearly",
        "pipeline/deform.py",
        "ct = map_coordinates(changed, at, order=3",
        "ct = map_coordinates(changed, at, order=1",
        "tests/pipeline/test_deform.py",
    ),
    Mutant(
        "source affine replaced by the cube's",
        "pipeline/shard.py",
        'source_affine=np.array(record["source_affine"])',
        'source_affine=np.array(record["affine"])',
        "tests/test_contract.py",
    ),
)


def lives(mutant: Mutant) -> tuple[bool, str]:
    """Whether the tests stay green on a copy with the mutant in it, and the last line they print."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in COPIED:
            source, target = ROOT / name, Path(scratch) / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        path = Path(scratch) / mutant.file
        text = path.read_text(encoding="utf-8")
        if text.count(mutant.old) != 1:
            return True, f"cannot be applied: {mutant.old!r} occurs {text.count(mutant.old)} times in {mutant.file}"
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests.split()],
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
        )
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return done.returncode != 1, (failed or done.stdout.strip().splitlines() or ["no output"])[-1][:110]


def main(names: list[str]) -> int:
    """Try the mutants whose name holds one of `names` (all without)."""
    chosen = [mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names)]
    begin = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lives, chosen))
    for mutant, (alive, line) in zip(chosen, results, strict=True):
        print(f"{'LIVES ' if alive else 'killed'}  {mutant.name:<62} {line}")
    survivors = sum(alive for alive, _ in results)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants killed in {time.monotonic() - begin:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
