"""The record of one case, `case.json`: what a stage hands to the next one, and where a bad case is set aside."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.errors import CaseError, UserError
from pipeline.files import write_json
from pipeline.versions import RESULT_VERSION

RECORD = "case.json"


def read_record(path: Path, *stages: str) -> dict:
    """The record of a case; a missing or foreign file is a `UserError`.

    With `stages`, it must come from one of them: a quarantined record is only accepted where none is named.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["case"], record["stage"], record["status"]
    except OSError:
        raise UserError(f"{path} cannot be read; expected the {RECORD} of an earlier stage. Run that stage.") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not a case record; expected the {RECORD} of an earlier stage.") from None
    if stages and (record["status"] != "ok" or record["stage"] not in stages):
        found = record["stage"] if record["status"] == "ok" else f"{record['stage']}, {record['status']}"
        raise UserError(f"{path} is a record of stage {found}; expected a usable one of: {', '.join(stages)}.")
    return record


def located(record_path: Path, name: str) -> Path:
    """A file that a record names, relative to the record's folder or absolute."""
    return (record_path.parent / read_record(record_path)[name]).resolve()


def relative(path: Path, folder: Path) -> str:
    """`path` as a record in `folder` names it, so that results/ can be moved as a whole."""
    return os.path.relpath(path, folder)


def run_case(
    stage: str, known: dict, folder: Path, work: Callable[[Path], dict], noted: Mapping[str, object] | None = None
) -> dict:
    """Run one stage on one case and publish `folder`/case.json last.

    `known` is the upstream record: if it is quarantined it is handed on untouched, otherwise `work(folder)` returns what
    this stage adds. A `CaseError` sets the case aside with its code and reason; any other error stops the command.
    `noted` is filled by `work` on its way: it is part of the record however the work ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if known.get("status", "ok") != "ok":
        record = known
    else:
        record = {**known, "stage": stage, "status": "ok", "result_version": RESULT_VERSION[stage]}
        try:
            record |= work(folder)
        except CaseError as error:
            record |= {"status": "quarantined", "code": error.code, "reason": error.reason}
        record |= noted or {}
    write_json(folder / RECORD, record)
    return record
