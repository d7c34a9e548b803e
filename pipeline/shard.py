"""Stage shard: gather cases and their X-rays into one file that other projects read."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.nifti import load_nifti
from pipeline.records import read_record
from pipeline.shard_file import ShardCase, ShardInfo, write_shard
from pipeline.xray_file import load_xray

_SHARED = ("dataset", "dataset_version", "dataset_doi", "license", "attribution", "split", "structures", "spacing_mm")


def shard(
    record_paths: list[Path],
    projections: Path,
    out: Path,
    *,
    simulators: list[str],
    index: int,
    count: int,
    config: dict,
) -> None:
    """Write one shard of the cases whose records are given, with the X-rays `projections`/<simulator>/<case>.h5."""
    records = [read_record(path, "label", "derive") for path in record_paths]
    for name in _SHARED:
        values = {str(record[name]) for record in records}
        if len(values) > 1:
            raise UserError(
                f"shard {out.name}: cases differ in {name}: {', '.join(sorted(values))}; expected one value."
            )
    first = records[0]
    missing = [name for name in simulators if not (projections / name / f"{first['case']}.h5").is_file()]
    if missing:
        raise UserError(
            f"simulator {missing[0]!r} has no X-rays of case {first['case']} in {projections}. Run project."
        )
    if "seed" not in config:
        raise UserError("--config has no 'seed'; expected the JSON object that says how the data was made.")
    info = ShardInfo(
        **{name: first[name] for name in _SHARED if name != "structures"},
        structures=tuple(first["structures"]),
        index=index,
        count=count,
        seed=config["seed"],
        config=config,
    )
    loaders = [
        partial(_load, path, record, projections, simulators)
        for path, record in zip(record_paths, records, strict=True)
    ]
    write_shard(out, info, loaders)


def _load(path: Path, record: dict, projections: Path, simulators: list[str]) -> ShardCase:
    return ShardCase(
        id=record["case"],
        subject_key=record["subject_key"],
        derived_from=record["derived_from"],
        source_sha256=record["source_sha256"],
        ct_hu=load_nifti((path.parent / record["ct"]).resolve()),
        label=load_nifti((path.parent / record["label"]).resolve()),
        label_status=np.array(record["label_status"], np.uint8),
        affine=np.array(record["affine"]),
        source_affine=np.array(record["source_affine"]),
        source_shape=tuple(record["source_shape"]),
        flags=tuple(record["flags"]),
        xrays={name: load_xray(projections / name / f"{record['case']}.h5") for name in simulators},
    )
