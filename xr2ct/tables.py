"""CSV tables that are safe to open in a spreadsheet, and aligned text."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from xr2ct.errors import UserError
from xr2ct.files import publish

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Publish a CSV; numbers carry 9 digits, and text that a spreadsheet would run as a formula gets a leading '."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell(row[column]) for column in columns] for row in rows)
    with publish(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV that must have exactly `columns`."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Expected a CSV of xr2ct.") from error
    if tuple(reader.fieldnames or ()) != tuple(columns):
        raise UserError(f"{path}: columns are {reader.fieldnames}, expected {', '.join(columns)}. Make it again.")
    return rows


def cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.9g}"
    text = str(value)
    return f"'{text}" if text.startswith(FORMULA_STARTS) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False


def aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Lines whose first `left` columns are set to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_padded(row, widths, left)).rstrip() for row in rows]


def _padded(row: Sequence[str], widths: Sequence[int], left: int) -> list[str]:
    return [text.ljust(w) if i < left else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))]
