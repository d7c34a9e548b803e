"""A page for people: which CTs of a cohort go on, which were left out, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from pipeline.files import write_text
from pipeline.flags import FLAG_MEANINGS

_HEAD = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>xr2ct: cohort</title><style>
body { margin: 2rem auto; max-width: 1100px; padding: 0 1rem; color: #1d2430; font: 16px/1.5 system-ui, sans-serif; }
table { border-collapse: collapse; margin: .6rem 0 2rem; font-size: .92rem; }
th, td { text-align: left; padding: .35rem 1.2rem .35rem 0; border-bottom: 1px solid #e2e6ec; vertical-align: top; }
th { color: #667081; font-weight: 600; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
td.hash { font: .8rem ui-monospace, monospace; word-break: break-all; max-width: 12rem; }
</style></head><body>
"""


def write_page(path: Path, good: Sequence[dict], bad: Sequence[dict]) -> None:
    """Publish the page of records that go on and of records that are set aside; it names no file and no person."""
    splits = Counter((record["dataset"], record["split"], record["license"]) for record in good)
    labelled = Counter((record["dataset"], record["split"]) for record in good if any(record["label_status"][1:]))
    flags = Counter(flag for record in good for flag in record["flags"])
    reasons = Counter((record["stage"], record["code"]) for record in bad)
    parts = [
        f"<h1>{len(good)} cases go on, {len(bad)} are left out</h1>",
        "<h2>What goes on</h2>",
        _table(
            ("data set", "split", "licence", "cases", "with labels"),
            [(*key, count, labelled[key[:2]]) for key, count in sorted(splits.items())],
        ),
    ]
    if flags:
        parts += [
            "<h2>What was noticed in them</h2><p>Each case's flags are in <code>cases.tsv</code> and in the shards.</p>",
            _table(
                ("flag", "meaning", "cases"),
                [(flag, FLAG_MEANINGS[flag], count) for flag, count in flags.most_common()],
            ),
        ]
    if bad:
        columns = ("case", "dataset", "stage", "code", "reason", "fetched_sha256")
        parts += [
            "<h2>What was left out</h2>",
            _table(("stage", "code", "cases"), [(*key, count) for key, count in reasons.most_common()]),
            "<h2>Each of them</h2>",
            _table(
                (*columns[:-1], "sha256 of the CT"), [[record.get(column, "") for column in columns] for record in bad]
            ),
        ]
    write_text(path, _HEAD + "\n".join(parts) + "\n</body></html>\n")


def _table(columns: Iterable[str], rows: Iterable[Sequence]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f'<td class="n">{value}</td>'
    text = str(value)
    kind = ' class="hash"' if len(text) == 64 else ""
    return f"<td{kind}>{escape(text)}</td>"
