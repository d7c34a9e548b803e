"""The plan of a cohort: which cases exist, where each comes from, and which split it belongs to."""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import UserError
from pipeline.packages import PACKAGE_CASES

CASE_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
DERIVED_SPLITS = ("train", "family_validation", "family")


@dataclass(frozen=True)
class PlannedCase:
    """A case before anything was read. `fetch` are the arguments of `python -m pipeline fetch` for it."""

    id: str
    split: str
    fetch: tuple[str, ...]
    inputs: tuple[Path, ...] = ()


@dataclass(frozen=True)
class DerivedCase:
    """A deformation to make of `parent`; `number` seeds it."""

    id: str
    parent: str
    split: str
    number: int


@dataclass(frozen=True)
class Plan:
    """All cases of an experiment."""

    cases: dict[str, PlannedCase] = field(default_factory=dict)
    derived: dict[str, DerivedCase] = field(default_factory=dict)


def make_plan(config: dict, folder: Path) -> Plan:
    """Expand the checked config; relative paths count from `folder`. Duplicate ids are refused, bad ids are renamed."""
    cases: dict[str, PlannedCase] = {}
    for entry in config["cohort"]:
        for case in _packages(entry) if entry["source"] == "packages" else _folder(entry, folder):
            twin = next((known for known in cases if known.lower() == case.id.lower()), None)
            if twin:
                raise UserError(f"case id {case.id!r} appears twice in the cohort (as {twin!r}). Rename one of them.")
            cases[case.id] = case
    return Plan(cases, _derived(config["derive"], cases))


def _packages(entry: dict) -> list[PlannedCase]:
    unknown = [case for case in entry["cases"] if case not in PACKAGE_CASES]
    if unknown:
        raise UserError(f"package case {unknown[0]!r} is not known; expected one of: {', '.join(PACKAGE_CASES)}.")
    return [
        PlannedCase(case, split, ("--package-case", case, "--case", case, "--split", split))
        for case, split in entry["cases"].items()
    ]


def _folder(entry: dict, folder: Path) -> list[PlannedCase]:
    table = (folder / entry["csv"]).resolve()
    if not table.is_file():
        raise UserError(f"cohort CSV {entry['csv']!r} does not exist. Give its path relative to the config file.")
    with table.open(newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        columns = set(reader.fieldnames or ())
        known = {"case", "ct", "label", "subject", "split"}
        if not {"case", "ct"} <= columns <= known:
            raise UserError(
                f"cohort CSV {entry['csv']!r} has the columns {', '.join(sorted(map(str, columns)))}; expected case, ct "
                "and optionally label, subject, split."
            )
        rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    return [_folder_case(entry, table.parent, number, row) for number, row in enumerate(rows, start=2)]


def _folder_case(entry: dict, folder: Path, line: int, row: dict[str, str]) -> PlannedCase:
    split = row.get("split") or entry["split"]
    if split not in ("train", "validation", "test"):
        raise UserError(f"line {line} of {entry['csv']}: split {split!r}; expected one of: train, validation, test.")
    name = row["case"]
    safe = is_case_id(name)
    case = name if safe else "u-" + hashlib.sha256(name.encode()).hexdigest()[:12]
    arguments = ["--case", case, "--split", split, "--subject", row.get("subject") or case]
    for option in ("dataset", "license", "attribution", "label_scheme"):
        arguments += ["--" + option.replace("_", "-"), entry[option]]
    inputs = []
    if safe:
        for option in ("ct", "label"):
            if row.get(option):
                path = folder / row[option]
                arguments += ["--" + option, str(path)]
                inputs += [path] if path.is_file() else []
    else:
        arguments += ["--bad-id-line", str(line)]
    return PlannedCase(case, split, tuple(arguments), tuple(inputs))


def is_case_id(name: str) -> bool:
    """Whether a name can be a file name everywhere and means nothing to a shell."""
    return bool(re.fullmatch(CASE_ID, name)) and not _RESERVED.fullmatch(name) and not name.endswith(".")


def _derived(entries: list[dict], cases: dict[str, PlannedCase]) -> dict[str, DerivedCase]:
    derived = {}
    for entry in entries:
        parent = entry["parent"]
        if parent not in cases:
            raise UserError(f"derive.parent {parent!r} is no case of the cohort; expected one of: {', '.join(cases)}.")
        if cases[parent].split != "train":
            raise UserError(
                f"derive.parent {parent!r} belongs to split {cases[parent].split!r}; its derived cases would bring a "
                "held-out patient into training. Expected a parent of split 'train'."
            )
        number = 0
        for split in DERIVED_SPLITS:
            for _ in range(entry[split]):
                number += 1
                case = f"{parent}-d{number:04d}"
                derived[case] = DerivedCase(case, parent, split, number)
    return derived
