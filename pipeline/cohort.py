"""Stage cohort: who goes on, who is set aside and why; no patient may be in two of train, validation and test."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import write_table
from pipeline.records import read_record

CASE_COLUMNS = ("case", "dataset", "subject_key", "split", "labelled", "flags")
QUARANTINE_COLUMNS = ("case", "dataset", "stage", "code", "reason")
MIN_CASES_FOR_FRACTION = 20


class TooManyQuarantined(Exception):
    """More cases were set aside than the config allows (exit code 4)."""


def gather(record_paths: list[Path], folder: Path, *, max_quarantine_fraction: float) -> None:
    """Publish `folder`/quarantine.tsv and cases.tsv; refuse leaking splits and too many bad cases."""
    records = sorted((read_record(path) for path in record_paths), key=lambda record: record["case"])
    early = [record["case"] for record in records if record["status"] == "ok" and record["stage"] != "label"]
    if early:
        raise UserError(f"case {early[0]} has not been through the label stage; expected records of that stage.")
    good = [record for record in records if record["status"] == "ok"]
    bad = [record for record in records if record["status"] != "ok"]
    write_table(folder / "quarantine.tsv", QUARANTINE_COLUMNS, bad)
    for record in bad:
        print(
            f"quarantined {record['case']} at {record['stage']}: {record['code']}: {record['reason']}", file=sys.stderr
        )
    _refuse_too_many(len(records), bad, max_quarantine_fraction)
    refuse_leaks(good)
    rows = [
        {
            **{column: record[column] for column in ("case", "dataset", "subject_key", "split")},
            "labelled": int(any(record["label_status"][1:])),
            "flags": " ".join(record["flags"]),
        }
        for record in good
    ]
    write_table(folder / "cases.tsv", CASE_COLUMNS, rows)


def _refuse_too_many(total: int, bad: list[dict], allowed: float) -> None:
    too_many = total >= MIN_CASES_FOR_FRACTION and len(bad) > allowed * total
    if too_many or len(bad) == total:
        reasons = Counter(f"{record['stage']} {record['code']}" for record in bad).most_common(3)
        raise TooManyQuarantined(
            f"{len(bad)} of {total} cases cannot be used; allowed is a fraction of {allowed:g}. Most frequent: "
            + ", ".join(f"{reason} ({count})" for reason, count in reasons)
            + ". The lines above name each case; mend the data or raise max_quarantine_fraction."
        )


def refuse_leaks(records: list[dict]) -> None:
    """Stop if two cases of different splits share a patient or are the same CT; both are named.

    A patient is known by the subject of the cohort table, and by the DICOM PatientID where a series has one.
    """
    for first, second in combinations(records, 2):
        if first["split"] == second["split"]:
            continue
        same_patient = first["subject_key"] == second["subject_key"] or (
            first.get("patient_key") and first["patient_key"] == second.get("patient_key")
        )
        if same_patient or first["ct_sha256"] == second["ct_sha256"]:
            what = "are of one patient" if same_patient else "are the same CT"
            raise UserError(
                f"cases {first['case']} (split {first['split']}) and {second['case']} (split {second['split']}) {what}; "
                "expected every patient in one split only. Put both into the same split."
            )
