"""Who goes on: leaks are refused by name, bad cases are counted and listed."""

import pytest

from pipeline.cohort import TooManyQuarantined, gather
from pipeline.errors import UserError
from pipeline.files import read_table, write_json


def record(folder, case, **changes):
    values = {
        "case": case,
        "stage": "label",
        "status": "ok",
        "dataset": "d",
        "license": "CC-BY-4.0",
        "subject_key": f"key-{case}",
        "split": "train",
        "ct_sha256": f"sha-{case}",
        "label_status": [3, 0, 3],
        "flags": ["SHEARED"],
    } | changes
    path = folder / case / "case.json"
    write_json(path, values)
    return path


def bad(folder, case, code="E_GZIP_CRC"):
    why = {"code": code, "reason": "the\tfile is\nbroken", "fetched_sha256": f"hash of {case}"}
    return record(folder, case, stage="ingest", status="quarantined", **why)


def test_good_cases_go_on_and_bad_ones_are_listed_with_their_reason(tmp_path):
    paths = [record(tmp_path, "b"), bad(tmp_path, "c"), record(tmp_path, "a", label_status=[0, 0, 0])]
    gather(paths, tmp_path / "out", max_quarantine_fraction=0.05)
    cases = read_table(tmp_path / "out/cases.tsv")
    assert [(row["case"], row["labelled"], row["flags"]) for row in cases] == [
        ("a", "0", "SHEARED"),
        ("b", "1", "SHEARED"),
    ]
    (row,) = read_table(tmp_path / "out/quarantine.tsv")
    assert row == {
        "case": "c",
        "dataset": "d",
        "stage": "ingest",
        "code": "E_GZIP_CRC",
        "reason": "the file is broken",
        "sha256": "hash of c",
    }
    assert "2 cases go on, 1 are left out" in (tmp_path / "out/index.html").read_text()


def test_a_case_without_a_file_has_no_hash(tmp_path):
    changes = {"stage": "fetch", "status": "quarantined", "code": "E_MISSING", "reason": "the CT does not exist"}
    gather([record(tmp_path, "a"), record(tmp_path, "b", **changes)], tmp_path / "out", max_quarantine_fraction=1.0)
    (row,) = read_table(tmp_path / "out/quarantine.tsv")
    assert row["sha256"] == ""


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "validation"), ("validation", "test")])
@pytest.mark.parametrize(("shared", "words"), [("subject_key", "are of one patient"), ("ct_sha256", "are the same CT")])
def test_h13_a_patient_in_two_splits_stops_the_build_and_both_are_named(tmp_path, splits, shared, words):
    paths = [
        record(tmp_path, case, split=split, **{shared: "same"}) for case, split in zip(("a", "b"), splits, strict=True)
    ]
    with pytest.raises(UserError, match=rf"a \(split {splits[0]}\) and b \(split {splits[1]}\) {words}"):
        gather(paths, tmp_path / "out", max_quarantine_fraction=0.05)
    assert not (tmp_path / "out/cases.tsv").exists()


def test_two_series_of_one_dicom_patient_are_one_patient(tmp_path):
    paths = [record(tmp_path, case, split=split, patient_key="p") for case, split in (("a", "train"), ("b", "test"))]
    with pytest.raises(UserError, match="are of one patient"):
        gather(paths, tmp_path / "out", max_quarantine_fraction=0.05)


def test_a_patient_may_have_two_cases_in_one_split(tmp_path):
    paths = [record(tmp_path, case, subject_key="same") for case in ("a", "b")]
    gather(paths, tmp_path / "out", max_quarantine_fraction=0.05)
    assert len(read_table(tmp_path / "out/cases.tsv")) == 2


def test_too_many_bad_cases_stop_with_the_top_reasons(tmp_path):
    paths = [record(tmp_path, f"g{n}") for n in range(18)] + [bad(tmp_path, "x"), bad(tmp_path, "y", "E_ID")]
    gather(paths, tmp_path / "out", max_quarantine_fraction=0.1)
    with pytest.raises(TooManyQuarantined, match=r"2 of 20 cases .* fraction of 0.05.*ingest E_GZIP_CRC \(1\)"):
        gather(paths, tmp_path / "out", max_quarantine_fraction=0.05)
    assert len(read_table(tmp_path / "out/quarantine.tsv")) == 2


def test_nothing_left_is_said(tmp_path):
    with pytest.raises(TooManyQuarantined, match="1 of 1 cases"):
        gather([bad(tmp_path, "x")], tmp_path / "out", max_quarantine_fraction=1.0)


def part(folder, ct, name, code=""):
    """The record of one vertebra of a CT; with a code, set aside."""
    changes = {"scan": ct} | (
        {"stage": "ingest", "status": "quarantined", "code": code, "reason": "because"} if code else {}
    )
    return record(folder, f"{ct}-{name}", ct_sha256=f"{ct}-{name}", subject_key=ct, **changes)


def test_what_a_ct_does_not_hold_is_listed_but_is_no_fault(tmp_path, capsys):
    paths = [part(tmp_path, f"c{n}", "L1") for n in range(20)]
    paths += [part(tmp_path, f"c{n}", "T1", "E_REGION_ABSENT") for n in range(20)]
    paths += [part(tmp_path, f"c{n}", "T2", "E_REGION_CUT") for n in range(3)]
    gather(paths, tmp_path / "out", max_quarantine_fraction=0.0)
    assert len(read_table(tmp_path / "out/quarantine.tsv")) == 23 and len(read_table(tmp_path / "out/cases.tsv")) == 20
    error = capsys.readouterr().err
    assert "20 cases do not hold the region whole (E_REGION_ABSENT)" in error and "3 cases do not" in error
    assert "quarantined" not in error
    everything = [path for path in paths if "-L1" not in str(path)]
    with pytest.raises(
        TooManyQuarantined, match=r"20 of 20 cases .*ingest E_REGION_ABSENT \(20\), ingest E_REGION_CUT"
    ):
        gather(everything, tmp_path / "out", max_quarantine_fraction=1.0)


def test_a_bad_ct_counts_once_however_many_cases_it_would_have_become(tmp_path):
    names = ("L1", "L2", "L3", "L4", "L5")
    paths = [part(tmp_path, "bad", name, "E_GZIP_CRC") for name in names]
    paths += [part(tmp_path, f"c{n}", "L1") for n in range(19)]
    gather(paths, tmp_path / "out", max_quarantine_fraction=0.05)
    with pytest.raises(TooManyQuarantined, match=r"1 of 20 cases .*ingest E_GZIP_CRC \(5\)"):
        gather(paths, tmp_path / "out", max_quarantine_fraction=0.04)
