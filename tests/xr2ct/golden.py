"""A two-case shard of release 1.0.0, written with h5py from resources/shard.md: every later reader must read it."""

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np

SHAPE = (3, 4, 5)  # z, y, x
AFFINE = np.array([[2.0, 0, 0, -7], [0, 3.0, 0, 11], [0, 0, 5.0, 100], [0, 0, 0, 1]])
TEXT = h5py.string_dtype("utf-8")
ARRAY = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}
STRUCTURES = "background heart liver"
# A parallel beam towards -x, seen on a detector at x = -300 whose rows run down (-z) and whose columns run to -y.
DETECTOR = np.array([[-300.0, 40, 130], [0, 0, -6], [0, -4, 0]])
DIRECTION = np.array([-1.0, 0, 0, 0])
PARALLEL = np.array([[0, -1 / 4, 0, 10], [0, 0, -1 / 6, 130 / 6], [0, 0, 0, 1]])
# A cone from (900, 5, 90) onto the same detector: pixel = crossing of the ray with the plane x = -300.
FOCUS = np.array([900.0, 5, 90, 1])


def ct_hu(i):
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) * 7 - 200 + i).astype("<i2")


def label(i):
    out = np.zeros(SHAPE, "u1")
    out[1, 2, 3], out[2, 0, 1 + i], out[0, 0, 0] = 1, 2, 255
    return out


def image(i):
    return (np.arange(2 * 3).reshape(1, 2, 3) / 8 + i).astype("<f4")


def cone_matrix():
    """The pinhole of FOCUS and DETECTOR, solved from the definition rather than written down."""
    origin, step_v, step_u = DETECTOR
    basis = np.column_stack([step_u, step_v, origin - FOCUS[:3]])
    rows = np.linalg.inv(basis)
    return np.column_stack([rows, -rows @ FOCUS[:3]])


def write_golden_shard(path: Path, *, split: str = "train", ids=("case-a", "case-b"), subjects=("s1", "s2")) -> Path:
    with h5py.File(path, "w", libver=("v108", "v108")) as file:
        config = json.dumps({"seed": 3})
        file.attrs.update(
            {
                "schema": "xr2ct/shard",
                "schema_version": "1.0.0",
                "complete": np.uint8(1),
                "dataset": "golden",
                "dataset_version": "1",
                "dataset_doi": "",
                "license": "CC0-1.0",
                "attribution": "the tests",
                "split": split,
                "shard_index": 0,
                "shard_count": 1,
                "n_cases": 2,
                "generator": "by hand",
                "config_json": config,
                "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
                "seed": 3,
                "world": "RAS mm",
                "volume_axes": "z:S y:A x:R",
            }
        )
        for axis, size, step in zip("zyx", SHAPE, (5.0, 3.0, 2.0), strict=True):
            _scale(file, axis, size, step)
        file.create_dataset("ct", data=np.stack([ct_hu(0), ct_hu(1)]), chunks=(1, *SHAPE), **ARRAY)
        labels = file.create_dataset("label", data=np.stack([label(0), label(1)]), chunks=(1, *SHAPE), **ARRAY)
        labels.attrs.update(
            {"flag_values": np.arange(3, dtype="u1"), "flag_meanings": STRUCTURES, "ignore_value": np.uint8(255)}
        )
        for name in ("ct", "label"):
            for number, axis in enumerate("zyx", start=1):
                file[name].dims[number].attach_scale(file[axis])
        file["label_status"] = np.array([[3, 3, 2], [3, 3, 3]], "u1")
        texts = {
            "id": ids,
            "subject_key": subjects,
            "source_sha256": ("0" * 64, "1" * 64),
            "ct_sha256": [hashlib.sha256(ct_hu(i).tobytes()).hexdigest() for i in (0, 1)],
            "derived_from": ("", "case-a"),
        }
        for name, values in texts.items():
            file.create_dataset(f"case/{name}", data=list(values), dtype=TEXT)
        file["case/affine"] = np.stack([AFFINE, AFFINE])
        file["case/source_affine"] = np.stack([AFFINE, AFFINE])
        file["case/source_shape"] = np.array([[5, 4, 3]] * 2, "<i4")
        file["case/qc_flags"] = np.array([0, 4], "<u4")
        for simulator, projection, source in (("parallel", PARALLEL, DIRECTION), ("cone", cone_matrix(), FOCUS)):
            group = file.create_group(f"xray/{simulator}")
            group.attrs.update({"beam": simulator, "energy_kev": 60.0})
            group.create_dataset("view", data=["LAT"], dtype=TEXT).make_scale("view")
            for axis, size, step in zip("vu", (2, 3), (6.0, 4.0), strict=True):
                _scale(group, axis, size, step)
            group.create_dataset("image", data=np.stack([image(0), image(1)]), chunks=(1, 1, 2, 3), **ARRAY)
            for number, axis in enumerate(("view", "v", "u"), start=1):
                group["image"].dims[number].attach_scale(group[axis])
            group["projection"] = np.stack([projection[None]] * 2).astype("<f8")
            group["source_mm"] = np.stack([source[None]] * 2)
            group["detector_mm"] = np.stack([DETECTOR[None]] * 2)
    return path


def _scale(group: h5py.Group, name: str, size: int, step_mm: float) -> None:
    group[name] = np.arange(size, dtype="<f8") * step_mm
    group[name].make_scale(name)
    group[name].attrs["units"] = "mm"
