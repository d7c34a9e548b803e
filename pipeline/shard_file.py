"""Write a shard, schema xr2ct/shard 1.0.0 (resources/shard.md): the boundary to everything that learns."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float, Float32, Float64, Int16, UInt8
from numpy import ndarray

from pipeline.errors import TransientError, UserError
from pipeline.files import array_sha256, publish
from pipeline.flags import FLAG_BITS

SCHEMA, SCHEMA_VERSION = "xr2ct/shard", "1.0.0"
IGNORE_LABEL = 255
CASES_PER_SHARD = 32
_ARRAY = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}
_CHECKED = {"chunks": True, "fletcher32": True}
_TEXT = h5py.string_dtype("utf-8")


@dataclass(frozen=True)
class Xray:
    """All views of one case by one simulator; shapes and frames as in resources/shard.md."""

    views: tuple[str, ...]
    image: Float32[ndarray, "view v u"]
    projection: Float64[ndarray, "view 3 4"]
    source_mm: Float64[ndarray, "view 4"]
    detector_mm: Float64[ndarray, "view 3 3"]
    attributes: dict[str, str | float]


@dataclass(frozen=True)
class ShardCase:
    """Everything one case contributes. `label_status`: 0 not annotated, 1 absent, 2 cut by the field of view, 3 complete."""

    id: str
    subject_key: str
    derived_from: str
    source_sha256: str
    ct_hu: Int16[ndarray, "z y x"]
    label: UInt8[ndarray, "z y x"]
    label_status: UInt8[ndarray, "structure"]
    affine: Float[ndarray, "4 4"]
    source_affine: Float[ndarray, "4 4"]
    source_shape: tuple[int, int, int]
    flags: tuple[str, ...]
    xrays: Mapping[str, Xray]


@dataclass(frozen=True)
class ShardInfo:
    """What all cases of a shard share. `structures` starts with background; `config` holds no path, host or time."""

    dataset: str
    dataset_version: str
    dataset_doi: str
    license: str
    attribution: str
    split: str
    index: int
    count: int
    structures: tuple[str, ...]
    spacing_mm: float
    seed: int
    config: dict


def write_shard(path: Path, info: ShardInfo, cases: Sequence[Callable[[], ShardCase]]) -> None:
    """Publish one shard; `cases` are loaders, called one after the other, so that one case is in memory at a time.

    The file is closed, opened again and every CT compared with its checksum before it gets its name.
    """
    if not cases:
        raise UserError(f"shard {path.name}: no case to write; expected at least one. Look into quarantine.tsv.")
    first = cases[0]()
    with publish(path) as private:
        _require_room(path, len(cases), first)
        with h5py.File(private, "w", libver=("v108", "v108")) as file:
            _write_root(file, info, len(cases))
            _create(file, info, first, len(cases))
            digests = [_write_case(file, 0, first)]
            for number, load in enumerate(cases[1:], start=1):
                digests.append(_write_case(file, number, load()))
            file.attrs["complete"] = np.uint8(1)
        with h5py.File(private, "r") as file:
            for number, digest in enumerate(digests):
                if array_sha256(file["ct"][number]) != digest:
                    raise OSError(f"shard {path.name}: case {number} reads back differently from what was written")
            for item in ("label", *(f"xray/{name}/image" for name in file["xray"])):
                file[item][...]


def _require_room(path: Path, count: int, first: ShardCase) -> None:
    """Stop before the disk is full: HDF5 cannot close a file that it cannot finish, and takes the process down with it.

    Counted as if nothing could be compressed.
    """
    arrays = [first.ct_hu, first.label, *(xray.image for xray in first.xrays.values())]
    needed, free = count * sum(array.nbytes for array in arrays) + (1 << 20), shutil.disk_usage(path.parent).free
    if free < needed:
        raise TransientError(
            f"shard {path.name} needs up to {needed / 1e6:.0f} MB of disk, {free / 1e6:.0f} MB are free. Make room, then "
            "run the same command again."
        )


def _write_root(file: h5py.File, info: ShardInfo, n_cases: int) -> None:
    config_json = json.dumps(info.config, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    file.attrs.update(
        {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "complete": np.uint8(0),
            "dataset": info.dataset,
            "dataset_version": info.dataset_version,
            "dataset_doi": info.dataset_doi,
            "license": info.license,
            "attribution": info.attribution,
            "split": info.split,
            "shard_index": info.index,
            "shard_count": info.count,
            "n_cases": n_cases,
            "generator": "xr2ct 0.1.0",
            "config_json": config_json,
            "config_sha256": hashlib.sha256(config_json.encode()).hexdigest(),
            "seed": info.seed,
            "world": "RAS mm",
            "volume_axes": "z:S y:A x:R",
        }
    )


def _create(file: h5py.File, info: ShardInfo, first: ShardCase, n: int) -> None:
    """All datasets with their shapes, units and dimension scales, taken from the first case."""
    shape, classes = first.ct_hu.shape, len(info.structures)
    for axis, size in zip("zyx", shape, strict=True):
        _scale(file, axis, np.arange(size) * info.spacing_mm, "mm", "from the centre of voxel 0 along the axis")
    ct = file.create_dataset("ct", (n, *shape), "<i2", chunks=(1, *shape), **_ARRAY)
    ct.attrs.update({"units": "HU", "valid_min": np.int16(-1024), "valid_max": np.int16(3071)})
    label = file.create_dataset("label", (n, *shape), "u1", chunks=(1, *shape), **_ARRAY)
    label.attrs.update(
        {
            "flag_values": np.arange(classes, dtype=np.uint8),
            "flag_meanings": " ".join(info.structures),
            "ignore_value": np.uint8(IGNORE_LABEL),
        }
    )
    for volume in (ct, label):
        _attach(file, volume, ("z", "y", "x"))
    status = file.create_dataset("label_status", (n, classes), "u1")
    status.attrs.update(
        {
            "flag_values": np.arange(4, dtype=np.uint8),
            "flag_meanings": "not_annotated absent cut_by_field_of_view complete",
        }
    )
    for name in ("id", "subject_key", "source_sha256", "ct_sha256", "derived_from"):
        file.create_dataset(f"case/{name}", (n,), _TEXT)
    file["case/derived_from"].attrs["long_name"] = "id of the CT this case was deformed from; empty for a real CT"
    affine = file.create_dataset("case/affine", (n, 4, 4), "<f8", **_CHECKED)
    affine.attrs["long_name"] = "index (x, y, z, 1) of the stored grid -> world RAS mm"
    source_affine = file.create_dataset("case/source_affine", (n, 4, 4), "<f8", **_CHECKED)
    source_affine.attrs["long_name"] = "index (i, j, k, 1) of the input -> world RAS mm"
    file.create_dataset("case/source_shape", (n, 3), "<i4")
    flags = file.create_dataset("case/qc_flags", (n,), "<u4")
    flags.attrs["flag_masks"] = np.array(list(FLAG_BITS.values()), dtype=np.uint32)
    flags.attrs["flag_meanings"] = " ".join(FLAG_BITS)
    for name, xray in first.xrays.items():
        _create_xray(file.create_group(f"xray/{name}"), xray, n)


def _create_xray(group: h5py.Group, xray: Xray, n: int) -> None:
    views, rows, columns = xray.image.shape
    group.attrs.update(xray.attributes)
    group.create_dataset("view", data=np.array(xray.views, dtype=object), dtype=_TEXT).make_scale("view")
    steps = np.linalg.norm(xray.detector_mm[0, 1:], axis=1)
    for axis, size, step in zip("vu", (rows, columns), steps, strict=True):
        _scale(group, axis, np.arange(size) * step, "mm", "on the detector, from the centre of pixel 0 along the axis")
    image = group.create_dataset("image", (n, views, rows, columns), "<f4", chunks=(1, views, rows, columns), **_ARRAY)
    image.attrs.update({"units": "1", "long_name": "line integral -log(I/I0), unflipped"})
    _attach(group, image, ("view", "v", "u"))
    projection = group.create_dataset("projection", (n, views, 3, 4), "<f8", **_CHECKED)
    projection.attrs["long_name"] = (
        "world RAS mm (x, y, z, 1) -> homogeneous pixel (u, v, 1), pixel centres at integers"
    )
    source = group.create_dataset("source_mm", (n, views, 4), "<f8", **_CHECKED)
    source.attrs.update({"units": "mm", "long_name": "homogeneous: w = 1 focal spot, w = 0 direction of the beam"})
    detector = group.create_dataset("detector_mm", (n, views, 3, 3), "<f8", **_CHECKED)
    detector.attrs.update({"units": "mm", "long_name": "centre of pixel (0, 0), step along v, step along u"})


def _write_case(file: h5py.File, number: int, case: ShardCase) -> str:
    for name in ("ct", "label"):
        array = case.ct_hu if name == "ct" else case.label
        if array.shape != file[name].shape[1:]:
            raise UserError(f"case {case.id}: {name} has shape {array.shape}; expected {file[name].shape[1:]}.")
        file[name][number] = array
    file["label_status"][number] = case.label_status
    digest = array_sha256(case.ct_hu)
    texts = {"id": case.id, "subject_key": case.subject_key, "derived_from": case.derived_from}
    for name, text in {**texts, "source_sha256": case.source_sha256, "ct_sha256": digest}.items():
        file[f"case/{name}"][number] = text
    file["case/affine"][number] = case.affine
    file["case/source_affine"][number] = case.source_affine
    file["case/source_shape"][number] = case.source_shape
    file["case/qc_flags"][number] = sum(FLAG_BITS[flag] for flag in set(case.flags))
    for name, xray in case.xrays.items():
        group = file[f"xray/{name}"]
        views = tuple(group["view"].asstr()[:])
        if views != xray.views or dict(group.attrs.items()) != xray.attributes:
            raise UserError(f"case {case.id}: simulator {name} differs from the shard's. Rerun the project stage.")
        for item in ("image", "projection", "source_mm", "detector_mm"):
            group[item][number] = getattr(xray, item)
    return digest


def _scale(group: h5py.Group, name: str, values: ndarray, units: str, long_name: str) -> None:
    scale = group.create_dataset(name, data=values.astype("<f8"))
    scale.make_scale(name)
    scale.attrs.update({"units": units, "long_name": long_name})


def _attach(group: h5py.Group, dataset: h5py.Dataset, axes: tuple[str, ...]) -> None:
    for axis, name in enumerate(axes, start=1):
        dataset.dims[axis].attach_scale(group[name])
