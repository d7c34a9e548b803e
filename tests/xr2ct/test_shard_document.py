"""resources/shard.md: its example runs, and its table names what the writer writes."""

import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.phantoms import phantom_case, write_phantom_shard
from tests.xr2ct.golden import write_golden_shard

DOCUMENT = (Path(__file__).parents[2] / "resources" / "shard.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.fixture
def shard(tmp_path):
    case = phantom_case("p0")
    case.ct_hu[13, 17, 6] = 2000  # z, y, x: the brightest voxel
    return write_phantom_shard(tmp_path / "shard.h5", [case])


def test_the_example_is_eight_lines_and_runs(shard):
    assert len(EXAMPLE.replace("\n\n", "\n").splitlines()) == 8
    done = subprocess.run([sys.executable, "-c", EXAMPLE], cwd=shard.parent, capture_output=True, text=True, check=True)
    found = re.fullmatch(r"voxel of 2000 HU appears in PA at column ([\d.]+), row ([\d.]+)\n", done.stdout)
    with h5py.File(shard) as file:
        point = file["case/affine"][0] @ [6, 17, 13, 1]
        source = file["xray/cone/source_mm"][0, 0, :3]
        origin, step_v, step_u = file["xray/cone/detector_mm"][0, 0]
    # the crossing of the ray from the focal spot through the voxel with the detector, without the matrix
    u, v, _ = np.linalg.solve(np.column_stack([step_u, step_v, source - point[:3]]), source - origin)
    assert [float(text) for text in found.groups()] == pytest.approx([u, v], abs=0.051)


def test_every_path_of_a_shard_is_documented_and_the_other_way_round(shard, tmp_path):
    table = DOCUMENT[DOCUMENT.index("## What is in a file") : DOCUMENT.index("`linear-clip-v1`")]
    named = set(re.findall(r"`/([\w/<>]+)`", table)) | {"z", "y", "x", "xray/<simulator>/v", "xray/<simulator>/u"}
    for path in (shard, write_golden_shard(tmp_path / "golden.h5")):
        with h5py.File(path) as file:
            paths = []
            file.visititems(lambda name, item, paths=paths: paths.append(name) if hasattr(item, "dtype") else None)
            attributes = set(file.attrs)
        assert {re.sub(r"xray/\w+", "xray/<simulator>", path) for path in paths} <= named
        assert named - {"u"} <= {re.sub(r"xray/\w+", "xray/<simulator>", path) for path in paths}
        assert attributes <= set(re.findall(r"`(\w+)`", table))
