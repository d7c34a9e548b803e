"""The plan of a cohort: which cases exist, where each comes from, and which split it belongs to."""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import UserError
from pipeline.packages import PACKAGE_CASES
from pipeline.patients import subject_key

CASE_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_COLUMNS = {"case", "ct", "label", "subject", "split"}
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
        raise UserError(f"cohort CSV {entry['csv']!r} does not exist. Give its path relative to where snakemake runs.")
    try:
        with table.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            columns, lines = reader.fieldnames or [], list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"cohort CSV {entry['csv']!r} cannot be read ({error}); expected UTF-8 text with commas."
        ) from None
    if len(set(columns)) < len(columns) or not {"case", "ct"} <= set(columns) <= _COLUMNS:
        raise UserError(
            f"cohort CSV {entry['csv']!r} has the columns {', '.join(map(str, columns))}; expected case, ct and optionally "
            "label, subject, split, each once."
        )
    rows = []
    for number, line in enumerate(lines, start=2):
        if None in line or None in line.values():
            raise UserError(
                f"line {number} of {entry['csv']}: found another number of cells than the header has columns."
            )
        rows.append(_folder_case(entry, table.parent, number, {key: value.strip() for key, value in line.items()}))
    if not rows:
        raise UserError(f"cohort CSV {entry['csv']!r} has no case below its header.")
    return rows


def _folder_case(entry: dict, folder: Path, line: int, row: dict[str, str]) -> PlannedCase:
    split = row.get("split") or entry["split"]
    if split not in ("train", "validation", "test"):
        raise UserError(f"line {line} of {entry['csv']}: split {split!r}; expected one of: train, validation, test.")
    name = row["case"]
    safe = is_case_id(name)
    case = name if safe else "u-" + hashlib.sha256(name.encode()).hexdigest()[:12]
    # The patient's id itself stays here: a command line can be seen by others and is kept in Snakemake's records.
    arguments = [f"--case={case}", f"--split={split}"]
    if row.get("subject"):
        arguments.append(f"--subject-key={subject_key(entry['dataset'], row['subject'])}")
    for option in ("dataset", "license", "attribution", "label_scheme"):
        arguments.append(f"--{option.replace('_', '-')}={entry[option]}")
    inputs = []
    if safe:
        for option in ("ct", "label"):
            if row.get(option):
                path = folder / row[option]
                arguments.append(f"--{option}={path}")
                inputs += [path] if _watchable(path) else []
    else:
        arguments.append(f"--bad-id-line={line}")
    return PlannedCase(case, split, tuple(arguments), tuple(inputs))


def _watchable(path: Path) -> bool:
    """Whether Snakemake can watch the file for changes; a name with braces would mean something else to it."""
    try:
        return path.exists() and not set("{}") & set(str(path))
    except OSError:
        return False


def is_case_id(name: str) -> bool:
    """Whether a name can be a file name everywhere and means nothing to a shell."""
    return bool(re.fullmatch(CASE_ID, name)) and not _RESERVED.fullmatch(name) and not name.endswith(".")


def _derived(entries: list[dict], cases: dict[str, PlannedCase]) -> dict[str, DerivedCase]:
    derived: dict[str, DerivedCase] = {}
    numbers: dict[str, int] = {}
    taken = {case.lower() for case in cases}
    for entry in entries:
        parent = entry["parent"]
        if parent not in cases:
            raise UserError(f"derive.parent {parent!r} is no case of the cohort; expected one of: {', '.join(cases)}.")
        if cases[parent].split != "train":
            raise UserError(
                f"derive.parent {parent!r} belongs to split {cases[parent].split!r}; its derived cases would bring a "
                "held-out patient into training. Expected a parent of split 'train'."
            )
        for split in DERIVED_SPLITS:
            for _ in range(entry[split]):
                number = numbers[parent] = numbers.get(parent, 0) + 1
                case = f"{parent}-d{number:04d}"
                if not is_case_id(case) or case.lower() in taken:
                    raise UserError(
                        f"derived case {case!r} would take the id of another case, or one longer than 64 characters. "
                        "Rename that case, or the parent."
                    )
                derived[case] = DerivedCase(case, parent, split, number)
    return derived
