"""Your own CTs where they lie: listed in a small CSV, or found by a pattern such as "{case}/ct.nii.gz"."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from pipeline.errors import UserError
from pipeline.parts import parts_of
from pipeline.patients import case_id, subject_key
from pipeline.sources.contract import SPLITS, PlannedCase, Source

_COLUMNS = {"case", "ct", "label", "subject", "split"}
_FIELD = re.compile(r"\{(\w+)\}")


_ABOUT = ("dataset", "license", "attribution", "label_scheme", "assume_orientation")
"""What an entry of the config says of all its cases."""


def plan(entry: dict, folder: Path) -> list[PlannedCase]:
    """One case per row of the CSV or per match of the pattern; relative paths count from `folder`."""
    if bool(entry.get("csv")) == bool(entry.get("pattern")):
        raise UserError("a cohort entry of source 'folder' needs either 'csv' or 'pattern', not both.")
    return _listed(entry, folder) if entry.get("csv") else _found(entry, folder)


def _listed(entry: dict, folder: Path) -> list[PlannedCase]:
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
        row = {key: value.strip() for key, value in line.items()}
        split = row.get("split") or entry.get("split") or "test"
        if split not in SPLITS:
            raise UserError(
                f"line {number} of {entry['csv']}: split {split!r}; expected one of: train, validation, test."
            )
        rows.append(_case(entry, table.parent, row, split))
    if not rows:
        raise UserError(f"cohort CSV {entry['csv']!r} has no case below its header.")
    _refuse_twins(rows, "lines", f"of {entry['csv']}", first=2)
    return rows


def _found(entry: dict, folder: Path) -> list[PlannedCase]:
    """CTs by `pattern`, which holds {case} and may hold {subject} and *; labels by `label_pattern` with the same fields."""
    pattern, label_pattern = entry["pattern"], entry.get("label_pattern", "")
    fields = _FIELD.findall(pattern)
    if fields.count("case") != 1 or not set(fields) | set(_FIELD.findall(label_pattern)) <= {"case", "subject"}:
        raise UserError(
            f"pattern {pattern!r} of source 'folder' with label_pattern {label_pattern!r}; expected '{{case}}' once, "
            "optionally '{subject}', for example 'cts/{subject}/{case}.nii.gz'."
        )
    base, rest = folder, pattern
    if Path(pattern).is_absolute():
        base, rest = Path("/"), pattern.lstrip("/")
    matcher = re.compile(_regex(rest))
    cases = []
    for path in sorted(base.glob(_FIELD.sub("*", rest))):
        match = matcher.fullmatch(path.relative_to(base).as_posix())
        if not match:
            continue
        row = {"ct": str(path), **match.groupdict()}
        label = base / _FIELD.sub(
            lambda name, row=row: row.get(name[1], ""), label_pattern.lstrip("/" * (base != folder))
        )
        row["label"] = str(label) if label_pattern and label.exists() else ""
        cases.append(_case(entry, base, row, entry.get("split") or "test"))
    if not cases:
        raise UserError(f"pattern {pattern!r} of source 'folder' finds nothing. It counts from where snakemake runs.")
    _refuse_twins(cases, "CTs", f"in the alphabetical list of what pattern {pattern!r} finds", first=1)
    return cases


def _regex(pattern: str) -> str:
    """A pattern as a regular expression; a field that comes twice must be the same both times."""
    parts, seen = [], set()
    for text in re.split(r"(\{\w+\}|\*)", pattern):
        name = text[1:-1]
        if text == "*":
            parts.append("[^/]*")
        elif not _FIELD.fullmatch(text):
            parts.append(re.escape(text))
        else:
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)")
            seen.add(name)
    return "".join(parts)


def _refuse_twins(cases: list[PlannedCase], things: str, where: str, *, first: int) -> None:
    """Two cases of one id are told by their places: a generated id says nothing, and what it stands for may be a name."""
    seen: dict[str, int] = {}
    for number, case in enumerate(cases, start=first):
        if case.id in seen:
            raise UserError(
                f"{things} {seen[case.id]} and {number} {where} have the same case id, which becomes {case.id!r}; expected "
                "one CT per id. Rename one of them."
            )
        seen[case.id] = number


def _case(entry: dict, folder: Path, row: dict[str, str], split: str) -> PlannedCase:
    case = case_id(row["case"])
    # The patient's id itself stays here: a command line can be seen by others and is kept in Snakemake's records.
    arguments = [f"--case={case}", f"--split={split}"]
    if row.get("subject"):
        arguments.append(f"--subject-key={subject_key(entry['dataset'], row['subject'])}")
    arguments += [f"--{option.replace('_', '-')}={entry[option]}" for option in _ABOUT if option in entry]
    inputs = []
    files = {option: folder / row[option] for option in ("ct", "label") if row.get(option)}
    if all(map(_sayable, files.values())):
        for option, path in files.items():
            arguments.append(f"--{option}={path}")
            inputs += [part for part in parts_of(path) if _watchable(part)]
    return PlannedCase(case, split, tuple(arguments), tuple(inputs), entry["license"])


def _sayable(path: Path) -> bool:
    """Whether a name can stand on a command line and in a record; else fetch finds the CT missing."""
    try:
        return b"\0" not in str(path).encode()
    except UnicodeEncodeError:
        return False


def _watchable(path: Path) -> bool:
    """Whether Snakemake can watch the file for changes; a name with braces would mean something else to it."""
    try:
        return path.exists() and not set("{}") & set(str(path))
    except OSError:
        return False


SOURCE = Source(
    about="your own files, listed in a CSV or found by a pattern; NIfTI, NRRD, MetaImage or DICOM folders; labels also as "
    "DICOM segmentation",
    keys=("csv", "pattern", "label_pattern", "split", *_ABOUT),
    needs=("dataset", "license", "attribution"),
    plan=plan,
)
