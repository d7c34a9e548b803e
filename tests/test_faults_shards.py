"""Shards under fire: killed writers, flipped bits, foreign tools, other processes, files that change under a reader."""

from __future__ import annotations

import fcntl
import hashlib
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pipeline.shard_file import ShardCase, ShardInfo, Xray, write_shard
from tests.xr2ct.golden import AFFINE, DETECTOR, DIRECTION, PARALLEL, write_golden_shard
from xr2ct.errors import UserError
from xr2ct.shards import Shard
from xr2ct.verify import verify

SHAPE = (40, 44, 48)
INFO = ShardInfo(
    dataset="little",
    dataset_version="1",
    dataset_doi="",
    license="CC0-1.0",
    attribution="the tests",
    split="train",
    index=0,
    count=1,
    structures=("background", "heart"),
    spacing_mm=3.0,
    seed=1,
    config={"seed": 1},
)


def one_case(number: int, *, brightest: float = 4.0) -> ShardCase:
    """Noise on 3 mm and its X-ray: a few hundred kilobytes that take a moment to write."""
    rng = np.random.default_rng(number)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = AFFINE[:3, 3]
    label = np.zeros(SHAPE, np.uint8)
    label[3:9, 4:20, 5:30] = 1
    image = rng.uniform(0, brightest, (1, 2, 3)).astype(np.float32)
    image[0, 0, 0] = brightest
    xray = Xray(
        views=("LAT",),
        image=image,
        projection=PARALLEL[None].astype(np.float64),
        source_mm=DIRECTION[None].astype(np.float64),
        detector_mm=DETECTOR[None].astype(np.float64),
        attributes={"beam": "parallel", "energy_kev": 60.0},
    )
    return ShardCase(
        id=f"case-{number}",
        subject_key=f"s{number}",
        derived_from="",
        source_sha256="0" * 64,
        ct_hu=rng.integers(-1024, 3072, SHAPE).astype(np.int16),
        label=label,
        label_status=np.array([3, 3], np.uint8),
        affine=affine,
        source_affine=affine,
        source_shape=SHAPE[::-1],
        flags=(),
        xrays={"parallel": xray},
    )


def write(path, count: int = 4, **changes) -> None:
    write_shard(path, INFO, [lambda number=number: one_case(number, **changes) for number in range(count)])


def digest(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Fuse:
    """Counts the calls and returns of Python, and kills its own process at one of them."""

    def __init__(self, at: float = math.inf):
        self.at, self.count = at, 0

    def __call__(self, frame, event, argument):
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def write_with(fuse: Fuse, path) -> None:
    sys.setprofile(fuse)
    try:
        write(path)
    finally:
        sys.setprofile(None)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_h01_a_writer_killed_at_any_time_leaves_a_whole_file_or_none(tmp_path):
    """kill -9 at 40 moments from the first call to after the last: 20 all over, 20 about the fsync and the rename."""
    write(tmp_path / "first" / "shard.h5")  # fills every cache, so that all later ones make the same calls
    fuse = Fuse()
    write_with(fuse, tmp_path / "undisturbed" / "shard.h5")
    expected = digest(tmp_path / "undisturbed" / "shard.h5")
    path, found = tmp_path / "killed" / "shard.h5", []
    for moment in [*np.linspace(1, fuse.count, 20, dtype=int), *range(fuse.count - 19, fuse.count + 1)]:
        shutil.rmtree(path.parent, ignore_errors=True)
        writer = multiprocessing.get_context("fork").Process(target=write_with, args=(Fuse(int(moment)), path))
        writer.start()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL or moment > fuse.count - 9  # a call or two less is no failure
        found.append(path.exists())
        assert not path.exists() or digest(path) == expected
    assert 0 < sum(found) < 40
    (path.parent / f".shard.h5.tmp-{os.getpid() + 1}").write_bytes(b"a killed writer's")
    write(path)
    assert digest(path) == expected and [item.name for item in path.parent.iterdir()] == ["shard.h5"]


def test_h02_every_flipped_bit_in_the_chunks_is_noticed_by_any_reader(tmp_path):
    """120 of 120: the checksum of HDF5 itself raises, so h5py alone is enough to notice."""
    path = tmp_path / "shard.h5"
    write(path, 2)
    whole = path.read_bytes()
    with h5py.File(path) as file:
        chunks = [
            (name, info.byte_offset, info.size)
            for name in ("ct", "label", "xray/parallel/image")
            for info in (file[name].id.get_chunk_info(index) for index in range(2))
        ]
    rng = np.random.default_rng(6)
    for name, offset, size in chunks * 20:
        damaged = bytearray(whole)
        damaged[offset + rng.integers(size)] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with h5py.File(path) as file, pytest.raises(OSError):
            file[name][...]
        assert len(list(verify([path]))) >= 1


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_h03_a_truncated_copy_is_a_clear_error(tmp_path, share):
    path = tmp_path / "shard.h5"
    write(path, 2)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"shard.h5: cannot be opened"):
        Shard(path)


@pytest.mark.parametrize("command", [["h5dump", "-H"], ["ncdump", "-h"]], ids=["h5dump", "ncdump"])
def test_h07_other_tools_read_it(tmp_path, command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    write(tmp_path / "shard.h5", 2)
    done = subprocess.run([*command, str(tmp_path / "shard.h5")], capture_output=True, text=True, check=True)
    assert all(word in done.stdout for word in ("label_status", "xray", "flag_meanings"))


def test_h07_a_browser_s_library_reads_it(tmp_path):
    """h5wasm, where NODE_PATH names the node_modules that holds it."""
    folder = Path(os.environ.get("NODE_PATH", "none"))
    if shutil.which("node") is None or not (folder / "h5wasm").is_dir():
        pytest.skip("h5wasm is not installed")
    path = tmp_path / "shard.h5"
    write(path, 2)
    script = (
        "import('h5wasm/node').then(async h=>{await h.ready;const f=new h.File(process.argv[1],'r');"
        "console.log(f.get('ct').shape.join(' '),f.get('ct').slice([[1,2]])[7])})"
    )
    command = ["node", "-e", script, str(path)]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "40", "44", "48", str(one_case(1).ct_hu.ravel()[7])]


@pytest.mark.parametrize("package", ["pyfive", "netCDF4"])
def test_h07_other_libraries_read_it(tmp_path, package):
    """pyfive is Python without the HDF5 library; netCDF4 is what `ncdump` and xarray read with."""
    reader = pytest.importorskip(package)
    path = tmp_path / "shard.h5"
    write(path, 2)
    file = reader.File(str(path)) if package == "pyfive" else reader.Dataset(path)
    np.testing.assert_array_equal(file["ct"][1], one_case(1).ct_hu)
    assert package == "pyfive" or file["ct"].dimensions[1:] == ("z", "y", "x")
    file.close()


class Cases(torch.utils.data.Dataset):
    """What a user's training loop does with shards."""

    def __init__(self, path):
        self.shard = Shard(path)

    def __len__(self):
        return len(self.shard)

    def __getitem__(self, i):
        case = self.shard.case(i)
        return case.id, torch.from_numpy(case.ct_hu), torch.from_numpy(self.shard.xray(i, "parallel").image)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_h08_workers_of_any_kind_give_the_same_samples_in_the_same_order(tmp_path, method):
    write(tmp_path / "shard.h5")
    seen = []
    for workers in (0, 2):
        loader = torch.utils.data.DataLoader(
            Cases(tmp_path / "shard.h5"),
            shuffle=True,
            generator=torch.Generator().manual_seed(5),
            num_workers=workers,
            multiprocessing_context=method if workers else None,
        )
        seen.append([(names, ct.sum().item(), image.sum().item()) for names, ct, image in loader])
    assert seen[0] == seen[1] and len(seen[0]) == 4
    assert sorted(names[0] for names, *_ in seen[0]) == [f"case-{number}" for number in range(4)]


@pytest.mark.parametrize("change", ["removed", "replaced", "cut"])
def test_h09_a_file_that_changes_under_its_readers_is_named(tmp_path, change):
    """Whoever has it open goes on with the old one; a worker that opens it anew must not read something else."""
    path = tmp_path / "shard.h5"
    write(path, 2)
    shard = Shard(path)
    worker = Shard.__new__(Shard)
    worker.__dict__.update(shard.__getstate__())
    if change == "replaced":
        write(path, 3)
    else:
        path.unlink()
        if change == "cut":
            path.write_bytes(b"")
    np.testing.assert_array_equal(shard.case(1).ct_hu, one_case(1).ct_hu)
    with pytest.raises(UserError, match=r"shard.h5: "):
        worker.case(1)


def test_h10_a_disk_without_locks_is_no_obstacle(tmp_path):
    """Another process holds the lock that HDF5 would ask for: as on network disks where asking already fails."""
    path = write_golden_shard(tmp_path / "golden.h5")
    with path.open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(OSError):
            h5py.File(path, "r", locking=True)
        assert Shard(path).case(0).id == "case-a"


def test_h11_bright_pixels_are_stored_as_they_are(tmp_path):
    """float32: nothing to clip at 15.99, the end of a 12-bit fixed-point X-ray."""
    write(tmp_path / "shard.h5", 1, brightest=123.456)
    assert Shard(tmp_path / "shard.h5").xray(0, "parallel").image.max() == np.float32(123.456)


def test_h11_values_beyond_the_range_do_not_pass_verify(tmp_path):
    path = tmp_path / "shard.h5"
    write(path, 1)
    for value in (3072, -1025):
        with h5py.File(path, "a") as file:
            file["ct"][0, 0, 0, 0] = value
        assert any("expected -1024..3071" in line for line in verify([path]))
