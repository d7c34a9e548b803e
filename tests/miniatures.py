"""Public archives in miniature: the names, folders, formats and traps of the real ones around little phantom CTs."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from pipeline.sources import SOURCES
from pipeline.structures import load_scheme
from tests.faulty_server import FaultyServer
from tests.phantoms import labelled_phantom

SHAPE = (20, 24, 28)
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2.5, 0, -40], [0, 0, 3.0, 10], [0, 0, 0, 1.0]])
BALL, ROD, PLATE = 1, 2, 3
"""Labels of the phantom: the ball lies on the patient's left, the rod behind, the plate at the head end."""


def packed(array_zyx: np.ndarray, affine: np.ndarray = AFFINE) -> bytes:
    """A .nii.gz file's bytes."""
    image = nib.Nifti1Image(np.ascontiguousarray(array_zyx.T), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return gzip.compress(image.to_bytes(), mtime=0)


def phantom(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy CT of its own and its labels, (z, y, x) with x towards the patient's left (the affine's first axis)."""
    ct, label = labelled_phantom(SHAPE, (0.0, seed % 3, 0.0))
    return (ct + np.random.default_rng(seed).integers(-9, 10, ct.shape)).astype(np.int16), label


def write_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    """A zip with stored members, as those of packed images are; then a flipped byte is a flipped byte of the member."""
    with zipfile.ZipFile(path, "w") as bundle:
        for name, content in members.items():
            bundle.writestr(zipfile.ZipInfo(name), content)
    return path


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as bundle:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
    return path


def totalsegmentator_members(splits: Mapping[str, str]) -> dict[str, bytes]:
    """meta.csv, ct.nii.gz and 117 masks for each case of `splits`; heart, sternum and liver are not empty."""
    lines = ["image_id;age;gender;institute;study_type;split;manufacturer;scanner_model"]
    lines += [f"{case};60;f;A;ct thorax;{split};X;Y" for case, split in splits.items()]
    members = {"meta.csv": "\n".join(lines).encode() + b"\n"}
    filled = {"heart": BALL, "sternum": ROD, "liver": PLATE}
    for seed, case in enumerate(splits):
        ct, label = phantom(seed)
        members[f"{case}/ct.nii.gz"] = packed(ct)
        empty = packed(np.zeros(SHAPE, np.uint8))
        for name in load_scheme("totalsegmentator_v2").values():
            inside = (label == filled[name]).astype(np.uint8) if name in filled else None
            members[f"{case}/segmentations/{name}.nii.gz"] = empty if inside is None else packed(inside)
    return members


def verse_members(prefix: str, scans: Mapping[str, int]) -> dict[str, bytes]:
    """Scans by name -> seed of the phantom; the plate is T7, the rod T13, the ball L5. Snapshots and centroids beside."""
    members = {}
    for name, seed in scans.items():
        subject = name.partition("_")[0]
        ct, label = phantom(seed)
        ids = np.choose(label, [0, 24, 28, 14]).astype(np.uint8)
        members[f"{prefix}/rawdata/{subject}/{name}_ct.nii.gz"] = packed(ct)
        members[f"{prefix}/derivatives/{subject}/{name}_seg-vert_msk.nii.gz"] = packed(ids)
        members[f"{prefix}/derivatives/{subject}/{name}_seg-subreg_ctd.json"] = b"[]"
        members[f"{prefix}/derivatives/{subject}/{name}_seg-vert_snp.png"] = b"\x89PNG"
    return members


def hips(seed: int, *, right: int) -> tuple[np.ndarray, np.ndarray]:
    """A CT and ids 1 sacrum, 2 and 3 hips, 4 lumbar spine; `right` is the id of the hip on the patient's right."""
    ct, _ = phantom(seed)
    ids = np.zeros(SHAPE, np.uint8)
    # The affine's x axis points to the patient's right with falling index: high index is left.
    ids[4:9, 8:16, 3:8] = right
    ids[4:9, 8:16, 20:25] = 5 - right
    ids[4:9, 6:9, 11:17] = 1
    ids[11:18, 6:9, 11:17] = 4
    return ct, ids


class Published:
    """Miniature archives on a server, under the names, and with the true hashes, of the real ones."""

    def __init__(self, server: FaultyServer, monkeypatch):
        self._server = server
        self._monkeypatch = monkeypatch

    def path(self, name: str) -> Path:
        return self._server.folder / name

    def edition(self, source: str, version: str) -> None:
        """Let an edition's files come from the server; a real hash becomes the miniature's, no hash stays none."""
        editions = dict(SOURCES[source].editions)
        files = []
        for file in editions[version].files:
            content = self.path(file.name).read_bytes()
            files.append(
                replace(
                    file,
                    urls=(self._server.url(file.name),),
                    size=len(content) if file.size else 0,
                    md5=hashlib.md5(content).hexdigest() if file.md5 else "",
                    sha256=hashlib.sha256(content).hexdigest() if file.sha256 else "",
                )
            )
        editions[version] = replace(editions[version], files=tuple(files))
        self._monkeypatch.setitem(SOURCES, source, replace(SOURCES[source], editions=editions))
