"""Small asymmetric phantoms: nothing centred, nothing cubic, nothing isotropic, every side recognisable."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.project import simulate
from pipeline.shard_file import ShardCase, ShardInfo, Xray, write_shard
from pipeline.simulators import Simulator

STRUCTURES = ("background", "ball", "rod", "plate")
AFFINE = np.array([[3.0, 0, 0, -40], [0, 3.0, 0, 25], [0, 0, 3.0, 100], [0, 0, 0, 1]])


def labelled_phantom(shape=(20, 24, 28), shift=(0.0, 0.0, 0.0)) -> tuple[np.ndarray, np.ndarray]:
    """Water body with a dense ball on the patient's left, a rod behind, a plate at the head end: (ct_hu, label)."""
    z, y, x = np.indices(shape, dtype=float)
    size = np.array(shape, dtype=float)
    z, y, x = ((axis - offset) / n for axis, offset, n in zip((z, y, x), shift, size, strict=True))
    ct = np.full(shape, -1000.0)
    label = np.zeros(shape, np.uint8)
    ct[((x - 0.5) / 0.42) ** 2 + ((y - 0.52) / 0.38) ** 2 < 1] = 20.0
    for value, hu, inside in (
        (1, 300.0, ((x - 0.3) / 0.16) ** 2 + ((y - 0.6) / 0.18) ** 2 + ((z - 0.45) / 0.2) ** 2 < 1),
        (2, 800.0, (((x - 0.5) / 0.08) ** 2 + ((y - 0.25) / 0.1) ** 2 < 1) & (z > 0.1)),
        (3, -600.0, (abs(x - 0.62) < 0.18) & (abs(y - 0.6) < 0.12) & (abs(z - 0.8) < 0.1)),
    ):
        ct[inside], label[inside] = hu, value
    return np.rint(ct).astype(np.int16), label


def xrays_of(ct_hu, affine, *, beam="parallel", backend="joseph", views=("PA", "LAT"), shape=(26, 30)) -> Xray:
    """All views of one small CT as the shard stores them."""
    pixel_mm = 3.0 if beam == "parallel" else 4.0
    return simulate(ct_hu, affine, Simulator(beam, backend, views, shape, pixel_mm, 900.0, 700.0, 60.0))


def phantom_case(name: str, *, subject: str = "", shape=(20, 24, 28), shift=(0.0, 0.0, 0.0), **changes) -> ShardCase:
    """One complete case with a parallel and a cone simulator."""
    ct, label = labelled_phantom(shape, shift)
    values = {
        "id": name,
        "subject_key": subject or f"key-{name}",
        "derived_from": "",
        "source_sha256": "0" * 64,
        "ct_hu": ct,
        "label": label,
        "label_status": np.full(len(STRUCTURES), 3, np.uint8),
        "affine": AFFINE,
        "source_affine": AFFINE,
        "source_shape": shape[::-1],
        "flags": (),
        "xrays": {
            "parallel": xrays_of(ct, AFFINE, backend="parallel"),
            "cone": xrays_of(ct, AFFINE, beam="cone"),
        },
    }
    return ShardCase(**(values | changes))


def write_phantom_shard(path: Path, cases: list[ShardCase], *, split: str = "train", dataset: str = "phantom") -> Path:
    """Write `cases` as one shard by the real writer."""
    info = ShardInfo(
        dataset=dataset,
        dataset_version="1",
        dataset_doi="",
        license="CC0-1.0",
        attribution="made by the tests",
        split=split,
        index=0,
        count=1,
        structures=STRUCTURES,
        spacing_mm=3.0,
        seed=1,
        config={"grid": {"spacing_mm": 3.0}},
    )
    write_shard(path, info, [lambda case=case: case for case in cases])
    return path
