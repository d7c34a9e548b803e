"""What a CT is made of, and whether another one in its place is noticed."""

import gzip
import hashlib
import os

import numpy as np
import pytest

from pipeline.files import file_sha256
from pipeline.parts import content_sha256, fingerprint, parts_of
from pipeline.read import read_volume
from pipeline.sources.folder import plan
from tests.pipeline.read_cases import ct_phantom
from tests.pipeline.test_read_mha import header_text, mha_bytes

ENTRY = {"dataset": "d", "license": "CC0-1.0", "attribution": "a", "label_scheme": "totalsegmentator_v2"}


def write_mhd(folder, voxels, name="a"):
    """A header and its voxels in another file."""
    (folder / f"{name}.mhd").write_text(header_text(ElementDataFile=f"{name}.raw"))
    (folder / f"{name}.raw").write_bytes(voxels)
    return folder / f"{name}.mhd"


def test_a_metaimage_header_brings_its_voxels(tmp_path):
    header = write_mhd(tmp_path, b"voxels")
    assert parts_of(header) == [header, tmp_path / "a.raw"]
    header.rename(tmp_path / "b.txt")  # by its first bytes, not by its name
    assert parts_of(tmp_path / "b.txt") == [tmp_path / "b.txt", tmp_path / "a.raw"]


def test_everything_else_is_alone(tmp_path):
    (tmp_path / "a.mha").write_bytes(mha_bytes())
    (tmp_path / "a.mhd").write_text(header_text(ElementDataFile="gone.raw"))
    (tmp_path / "b.mhd").write_text(header_text(ElementDataFile="../a.mha"))
    (tmp_path / "c.mhd").write_text("ObjectType = Image\n")
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"x"))
    os.mkfifo(tmp_path / "pipe")
    for name in ("a.mha", "a.mhd", "b.mhd", "c.mhd", "a.nii.gz", "pipe", "nowhere", "."):
        assert parts_of(tmp_path / name) == [tmp_path / name]


def test_the_hash_of_the_fetch_stage_is_that_of_the_reader_and_covers_the_voxels(tmp_path):
    header = write_mhd(tmp_path, ct_phantom().tobytes(order="F"))
    before = content_sha256(header)
    assert before == read_volume(header).source_sha256
    by_hand = "".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in (header, tmp_path / "a.raw"))
    assert before == hashlib.sha256(by_hand.encode()).hexdigest()
    (tmp_path / "a.raw").write_bytes((ct_phantom() + 1).tobytes(order="F"))
    assert content_sha256(header) == read_volume(header).source_sha256 != before
    (tmp_path / "b.mha").write_bytes(mha_bytes())
    assert content_sha256(tmp_path / "b.mha") == file_sha256(tmp_path / "b.mha")


def test_the_plan_watches_both_files(tmp_path):
    write_mhd(tmp_path, b"voxels")
    write_mhd(tmp_path, b"labels", "l")
    (case,) = plan(ENTRY | {"pattern": "{case}.mhd", "label_pattern": "l.mhd"}, tmp_path)[:1]
    assert case.inputs == tuple(tmp_path / name for name in ("a.mhd", "a.raw", "l.mhd", "l.raw"))


@pytest.mark.parametrize("at", [0, 50_000, 99_999])
def test_another_file_of_the_same_size_has_another_fingerprint(tmp_path, at):
    content = bytearray(np.random.default_rng(0).bytes(100_000))
    path = tmp_path / "a"
    path.write_bytes(content)
    before = fingerprint(path)
    os.utime(path, ns=(1, 1))
    assert fingerprint(path) == before
    content[at] ^= 1
    path.write_bytes(content)
    assert fingerprint(path) != before and len(before) < 40


def test_one_voxel_anywhere_in_a_gzip_file_is_noticed(tmp_path):
    """Its last bytes hold the checksum of the whole; stored uncompressed, so that the size stays."""
    voxels = bytearray(np.random.default_rng(0).bytes(100_000))
    path = tmp_path / "a.nii.gz"
    found = set()
    for place in (20_000, 30_000, 40_000):
        voxels[place] ^= 1
        path.write_bytes(gzip.compress(bytes(voxels), 0, mtime=0))
        found.add(fingerprint(path))
    assert len(found) == 3 and len({mark.split("-")[0] for mark in found}) == 1


def test_another_series_has_another_fingerprint(tmp_path):
    def write(*names, content=b"slice"):
        folder = tmp_path / "-".join(names) / content.decode()
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_bytes(content)
        return fingerprint(folder)

    marks = [write("1", "2", "3"), write("1", "2"), write("1", "2", "4"), write("1", "2", "3", content=b"SLICE")]
    assert len({*marks, write("1", "2", "3", content=b"sliced")}) == 5
    (tmp_path / "moved").mkdir()
    (tmp_path / "1-2-3/slice").rename(tmp_path / "moved/slice")
    assert fingerprint(tmp_path / "moved/slice") == marks[0]
    (tmp_path / "empty").mkdir()
    assert fingerprint(tmp_path / "empty").startswith("0-")
