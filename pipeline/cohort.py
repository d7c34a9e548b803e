"""Stage cohort: who goes on, who is set aside and why; no patient may be in two of train, validation and test."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from pipeline.cohort_page import write_page
from pipeline.errors import TooManyQuarantined, UserError
from pipeline.files import write_table
from pipeline.records import read_record
from pipeline.regions import ABSENT_CODE, CUT_CODE

CASE_COLUMNS = ("case", "dataset", "subject_key", "split", "labelled", "flags")
QUARANTINE_COLUMNS = ("case", "dataset", "stage", "code", "reason", "sha256")
MIN_CASES_FOR_FRACTION = 20
NOT_CHOSEN = (ABSENT_CODE, CUT_CODE)


def gather(record_paths: list[Path], folder: Path, *, max_quarantine_fraction: float) -> None:
    """Publish `folder`/quarantine.tsv and cases.tsv; refuse leaking splits and too many bad cases.

    index.html tells people the same, also where this is refused: it is no output of the rule, so it stays.
    The `sha256` of a case that is set aside is that of its CT as it was fetched, empty where there was none.
    """
    records = sorted((read_record(path) for path in record_paths), key=lambda record: record["case"])
    early = [record["case"] for record in records if record["status"] == "ok" and record["stage"] != "label"]
    if early:
        raise UserError(f"case {early[0]} has not been through the label stage; expected records of that stage.")
    good = [record for record in records if record["status"] == "ok"]
    bad = [record for record in records if record["status"] != "ok"]
    write_page(folder / "index.html", good, bad)
    rows = [{**record, "sha256": record.get("fetched_sha256", "")} for record in bad]
    write_table(folder / "quarantine.tsv", QUARANTINE_COLUMNS, rows)
    for record in bad:
        if record["code"] not in NOT_CHOSEN:
            print(
                f"quarantined {record['case']} at {record['stage']}: {record['code']}: {record['reason']}",
                file=sys.stderr,
            )
    for code in NOT_CHOSEN:
        if count := sum(record["code"] == code for record in bad):
            print(f"{count} cases do not hold the region whole ({code}); see quarantine.tsv", file=sys.stderr)
    _refuse_too_many(records, bad, max_quarantine_fraction)
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


def _refuse_too_many(records: list[dict], bad: list[dict], allowed: float) -> None:
    """Counted in CTs; one that merely does not hold a region of the experiment is not a bad one."""
    faulty = [record for record in bad if record["code"] not in NOT_CHOSEN]
    total, lost = len(_scans(records)), len(_scans(faulty))
    too_many = total >= MIN_CASES_FOR_FRACTION and lost > allowed * total
    if too_many or len(bad) == len(records):
        reasons = Counter(f"{record['stage']} {record['code']}" for record in (faulty if too_many else bad))
        reasons = reasons.most_common(3)
        raise TooManyQuarantined(
            f"{lost if too_many else total} of {total} cases cannot be used; allowed is a fraction of {allowed:g}. "
            "Most frequent: "
            + ", ".join(f"{reason} ({count})" for reason, count in reasons)
            + ". The lines above name each case; mend the data or raise max_quarantine_fraction."
        )


def _scans(records: list[dict]) -> set[str]:
    """The CTs behind some cases: several vertebrae are of one."""
    return {record.get("scan", record["case"]) for record in records}


def refuse_leaks(records: list[dict]) -> None:
    """Stop if two cases of different splits share a patient or are the same CT; both are named.

    A patient is known by the subject of the cohort table, and by the DICOM PatientID where a series has one.
    """
    for key, what in (
        ("subject_key", "are of one patient"),
        ("patient_key", "are of one patient"),
        ("ct_sha256", "are the same CT"),
    ):
        holders: dict[str, dict] = {}
        for record in records:
            value = record.get(key)
            first = holders.setdefault(value, record) if value else record
            if first["split"] != record["split"]:
                raise UserError(
                    f"cases {first['case']} (split {first['split']}) and {record['case']} (split {record['split']}) {what}; "
                    "expected every patient in one split only. Put both into the same split."
                )
