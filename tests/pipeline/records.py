"""A CT on disk with the record that the fetch stage leaves for it."""

from __future__ import annotations

from pathlib import Path

from pipeline.files import write_json


def fetched(folder: Path, ct: Path, label: Path | None = None, **changes) -> Path:
    """`folder`/fetch/case.json of a case whose files are `ct` and `label`; `changes` replace entries."""
    record = {
        "case": "a",
        "stage": "fetch",
        "status": "ok",
        "split": "test",
        "dataset": "little",
        "dataset_version": "",
        "dataset_doi": "",
        "license": "CC0-1.0",
        "attribution": "made by the tests",
        "subject_key": "key-a",
        "subject_given": True,
        "derived_from": "",
        "label_scheme": "totalsegmentator_v2",
        "label_names": {},
        "label_remap": {},
        "ct": str(ct),
        "label": str(label) if label else None,
    }
    path = folder / "fetch" / "case.json"
    write_json(path, record | changes)
    return path
