"""Public data sets in miniature, from a server with faults through the real sources to labelled cases."""

import csv
import gzip
import hashlib
import json
import os
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.errors import CaseError, TransientError, UserError
from pipeline.files import file_sha256, read_table
from pipeline.patients import case_id, subject_key
from pipeline.plan import make_plan
from pipeline.sources import SOURCES, get_edition
from pipeline.sources.contract import read_index, split_of
from pipeline.sources.ctpelvic1k import hip_names
from pipeline.sources.ctspine1k import read_splits
from pipeline.sources.masks import merge_masks
from pipeline.sources.shelf import RemoteFile, Shelf
from pipeline.structures import TABLES, load_scheme
from tests.cohorts import jobs, run, write_config
from tests.miniatures import (
    AFFINE,
    BALL,
    SHAPE,
    hips,
    packed,
    phantom,
    totalsegmentator_members,
    verse_members,
    write_zip,
)
from tests.public_sets import SMALL, TOTAL, VERSE, fetch, index, labelled, pelvis_archives, voxels


def test_totalsegmentator_from_a_bad_server_to_labels_by_name(tmp_path, server, published):
    write_zip(published.path(SMALL), totalsegmentator_members(TOTAL))
    published.edition("totalsegmentator", "2.0.1-small")
    server.faults.cut_at, server.faults.cuts = 0.4, 1
    found = read_index(index(tmp_path, "totalsegmentator", "2.0.1-small"))
    assert {case.id: case.split for case in found.values()} == {
        "s0000": "train", "s0011": "validation", "s0058": "test",
    }  # fmt: skip
    assert len(server.faults.requests) == 2 and "Range" in server.faults.requests[1][1]

    record = fetch(tmp_path, "totalsegmentator", "2.0.1-small", "s0011")
    assert record["license"] == "CC-BY-4.0" and record["dataset_doi"] == "10.5281/zenodo.10047263"
    assert sorted(path.name for path in (tmp_path / "fetch/s0011").iterdir()) == [
        "case.json",
        "ct.nii.gz",
        "label.nii.gz",
    ]
    ct, label = phantom(1)
    ids = {name: value for value, name in load_scheme("totalsegmentator_v2").items()}
    np.testing.assert_array_equal(voxels(tmp_path / "fetch/s0011/ct.nii.gz"), ct)
    merged = nib.load(tmp_path / "fetch/s0011/label.nii.gz")
    expected = np.choose(label, [0, ids["heart"], ids["sternum"], ids["liver"]])
    np.testing.assert_array_equal(voxels(tmp_path / "fetch/s0011/label.nii.gz"), expected)
    np.testing.assert_array_equal(merged.affine, nib.load(tmp_path / "fetch/s0011/ct.nii.gz").affine)
    assert len(server.faults.requests) == 2

    masks, record, _ = labelled(tmp_path, "s0011", ["liver", "heart", "kidney"])
    assert record["label_status"] == [3, 3, 3, 1]
    x_of = {name: np.argwhere(mask).mean(axis=0)[2] for name, mask in masks.items() if mask.any()}
    assert x_of["heart"] != x_of["liver"]
    volume = 27.0 * masks["heart"].sum()
    assert volume == pytest.approx(15.0 * (label == BALL).sum(), rel=0.1)


def test_the_shard_of_a_public_archive_is_labelled_by_name(tmp_path, server, published):
    write_zip(published.path(SMALL), totalsegmentator_members(TOTAL))
    published.edition("totalsegmentator", "2.0.1-small")
    server.faults.refuse, server.faults.refusals = (503, "2"), 2
    index(tmp_path, "totalsegmentator", "2.0.1-small")
    fetch(tmp_path, "totalsegmentator", "2.0.1-small", "s0000")
    masks, _, ct = labelled(tmp_path, "s0000", ["liver", "heart", "sternum"])
    record, shard = str(tmp_path / "label/s0000/case.json"), tmp_path / "train-00000-of-00001.h5"
    rays = [
        "--beam",
        "cone",
        "--detector-px",
        "8",
        "8",
        "--pixel-mm",
        "20",
        "--out",
        str(tmp_path / "project/cone/s0000.h5"),
    ]
    assert main(["project", record, *rays]) == 0
    places = ["--projections", str(tmp_path / "project"), "--simulators", "cone", "--out", str(shard)]
    assert main(["shard", record, *places]) == 0
    with h5py.File(shard) as file:
        meanings = file["label"].attrs["flag_meanings"]
        meanings = meanings.split() if isinstance(meanings, str) else [str(name) for name in meanings]
        assert meanings == ["background", "liver", "heart", "sternum"]
        for value, name in enumerate(meanings[1:], 1):
            np.testing.assert_array_equal(file["label"][0] == value, masks[name])
        np.testing.assert_array_equal(file["ct"][0], ct)
        assert (file.attrs["dataset"], file.attrs["license"]) == ("totalsegmentator", "CC-BY-4.0")


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ({"refusals": 99}, 75, "HTTP 429). Run the same command again"),
        ({"page": True}, 2, "sent a web page that is not a .zip file"),
        ({"spoil": 99}, 2, "expected"),
        ({"cut_at": 0.4, "cuts": 99}, 75, "the connection ended after"),
    ],
)
def test_the_commands_exit_code_tells_a_bad_network_from_a_bad_file(
    tmp_path, server, published, capsys, fault, status, words
):
    write_zip(published.path(SMALL), totalsegmentator_members({"s0000": "train"}))
    published.edition("totalsegmentator", "2.0.1-small")
    for name, value in fault.items():
        setattr(server.faults, name, value)
    where = ["--archives", str(tmp_path / "archives"), "--out", str(tmp_path / "index.json")]
    command = ["index", "--source", "totalsegmentator", "--version", "2.0.1-small", *where]
    assert main(command) == status and words in capsys.readouterr().err
    assert not (tmp_path / "index.json").exists() and not (tmp_path / "archives" / SMALL).exists()
    server.faults = type(server.faults)()
    assert main(command) == 0
    assert "1 cases, licence CC-BY-4.0; may be mixed with anything" in capsys.readouterr().out


def test_the_list_of_sources_names_versions_and_licences(capsys):
    assert main(["fetch", "--list"]) == 0
    out = capsys.readouterr().out
    for name, source in SOURCES.items():
        assert f"{name}: {source.about}" in out
        assert all(f"version {version}, {edition.license}" in out for version, edition in source.editions.items())
    assert out.index("packages:") < out.index("lidc-idri-0001") < out.index("folder:")


def test_d11_one_corrupt_member_costs_one_case(tmp_path, published):
    """The archive's md5 is right: it was published like that, as the real s0864 of version 1 was."""
    archive = write_zip(published.path(SMALL), totalsegmentator_members(TOTAL))
    with zipfile.ZipFile(archive) as bundle:
        damaged = {
            name: bundle.getinfo(name).header_offset for name in ("s0000/ct.nii.gz", "s0011/segmentations/heart.nii.gz")
        }
    raw = bytearray(archive.read_bytes())
    for name, offset in damaged.items():
        raw[offset + 30 + len(name) + 200] ^= 0xFF
    archive.write_bytes(raw)
    published.edition("totalsegmentator", "2.0.1-small")
    index(tmp_path, "totalsegmentator", "2.0.1-small")
    records = [fetch(tmp_path, "totalsegmentator", "2.0.1-small", case) for case in TOTAL]
    assert [(record["status"], record.get("code")) for record in records] == [
        ("quarantined", "E_ARCHIVE"), ("quarantined", "E_ARCHIVE"), ("ok", None),
    ]  # fmt: skip
    assert records[0]["reason"] == "a file of this case is damaged inside the archive"
    fetched = [record.get("fetched_sha256") for record in records]
    members = totalsegmentator_members(TOTAL)
    known = [hashlib.sha256(members[f"{case}/ct.nii.gz"]).hexdigest() for case in TOTAL]
    assert fetched == [None, *known[1:]], "the one with a damaged mask too"


def test_d11_a_ct_that_was_packed_damaged_is_set_aside_when_it_is_read(tmp_path, published):
    members = totalsegmentator_members(TOTAL)
    members["s0000/ct.nii.gz"] = members["s0000/ct.nii.gz"][:-3000]
    write_zip(published.path(SMALL), members)
    published.edition("totalsegmentator", "2.0.1-small")
    index(tmp_path, "totalsegmentator", "2.0.1-small")
    assert fetch(tmp_path, "totalsegmentator", "2.0.1-small", "s0000")["status"] == "ok"
    assert main(["ingest", str(tmp_path / "fetch/s0000/case.json"), "--out", str(tmp_path / "ingest/s0000")]) == 0
    assert json.loads((tmp_path / "ingest/s0000/case.json").read_text())["code"] == "E_GZIP_TRUNCATED"


LIVER = "s0000/segmentations/liver.nii.gz"
MOVED = AFFINE + 0.1 * np.eye(4, k=3)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({LIVER: None}, "E_ARCHIVE"),
        ({LIVER: packed(np.ones((20, 24, 27), np.uint8))}, "E_LABEL_SHAPE"),
        ({LIVER: packed(np.full(SHAPE, 2, np.uint8))}, "E_LABEL_VALUES"),
        ({LIVER: packed(np.full(SHAPE, -1, np.int8))}, "E_LABEL_VALUES"),
        ({LIVER: packed(np.full(SHAPE, 0.5, np.float32))}, "E_LABEL_VALUES"),
        ({LIVER: packed(np.ones(SHAPE, np.uint8), MOVED)}, "E_LABEL_AFFINE"),
        ({LIVER: b"<html>"}, "E_NOT_NIFTI"),
        ({"s0000/ct.nii.gz": b"<html>"}, "E_NOT_NIFTI"),
        ({"s0000/ct.nii.gz": gzip.compress(bytes(400))}, "E_HEADER"),
    ],
)
def test_masks_that_do_not_belong_to_their_ct_are_set_aside(tmp_path, published, change, code):
    members = totalsegmentator_members({"s0000": "train"}) | change
    members = {name: content for name, content in members.items() if content is not None}
    write_zip(published.path(SMALL), members)
    published.edition("totalsegmentator", "2.0.1-small")
    index(tmp_path, "totalsegmentator", "2.0.1-small")
    record = fetch(tmp_path, "totalsegmentator", "2.0.1-small", "s0000")
    assert (record["status"], record["code"]) == ("quarantined", code)


def test_where_masks_overlap_the_smaller_structure_wins():
    large, small, twin = (np.zeros(SHAPE, np.uint8) for _ in range(3))
    large[2:10, 2:10, 2:10] = 1
    small[8:12, 4:6, 4:6] = 1
    twin[8:12, 5:7, 4:6] = 1
    for order in ([9, 4, 7], [7, 4, 9], [4, 9, 7]):
        masks = {9: packed(small), 4: packed(twin), 7: packed(large)}
        merged = nib.Nifti1Image.from_bytes(
            gzip.decompress(merge_masks(packed(phantom(0)[0]), [(value, masks[value]) for value in order]))
        )
        ids = np.asarray(merged.dataobj).T
        assert (ids[small == 1] == 9).all(), "of two equally large ones the larger id wins"
        assert (ids[(twin == 1) & (small == 0)] == 4).all()
        assert (ids[(large == 1) & (small == 0) & (twin == 0)] == 7).all()
        assert ids.dtype == np.uint8 and (ids > 0).sum() == (large | small | twin).sum()


def test_the_label_maps_header_carries_geometry_and_nothing_else():
    image = nib.Nifti1Image(phantom(0)[0].T, AFFINE)
    image.header["descrip"] = b"ZZPHI^TEST"
    image.header["aux_file"] = b"ZZPHI"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"ZZPHI^TEST"))
    ct = gzip.compress(image.to_bytes())
    merged = gzip.decompress(merge_masks(ct, [(1, packed(phantom(0)[1] // 3))]))
    assert b"ZZPHI" not in merged
    np.testing.assert_array_equal(nib.Nifti1Image.from_bytes(merged).affine, image.affine)


def test_d10_known_bad_versions_are_refused_with_the_reason(tmp_path, server, published, monkeypatch):
    with pytest.raises(UserError, match=r"version '2.0.0' is refused: .*s0184, s0224.*use version 2.0.1"):
        get_edition("totalsegmentator", "2.0.0")
    with pytest.raises(UserError, match=r"version '1' is refused: .*other ids"):
        get_edition("totalsegmentator", "1")
    files = SOURCES["totalsegmentator"].editions["2.0.1"].files
    assert set(files[0].refused_md5) == {"fd65f71cf3ef78c67a3740909ecef674", "f0fbb3f91d9d99f2169863545f577b30"}

    given = tmp_path / "given"
    given.mkdir()
    old = write_zip(given / SMALL, totalsegmentator_members({"s0000": "train"}))
    md5 = hashlib.md5(old.read_bytes()).hexdigest()
    file = replace(SOURCES["totalsegmentator"].editions["2.0.1-small"].files[0], refused_md5={md5: "it is bad"})
    with pytest.raises(UserError, match=f"{SMALL} is refused: it is bad"):
        Shelf(tmp_path / "archives", given).get(file)
    with pytest.raises(UserError, match="has md5 .*, expected 6b5524af.* delete it and get it anew"):
        Shelf(tmp_path / "archives", given).get(replace(file, refused_md5={}))
    assert server.faults.requests == []


def test_masks_of_another_version_are_refused(tmp_path, published):
    write_zip(
        published.path(SMALL), totalsegmentator_members({"s0000": "train"}) | {"s0000/segmentations/face.nii.gz": b""}
    )
    published.edition("totalsegmentator", "2.0.1-small")
    with pytest.raises(UserError, match="holds a mask 'face', which version 2.0.1-small does not have"):
        index(tmp_path, "totalsegmentator", "2.0.1-small")


def test_d09_archives_on_disk_need_no_network(tmp_path, server, published):
    given = tmp_path / "my archives"
    given.mkdir()
    write_zip(given / SMALL, totalsegmentator_members(TOTAL))
    published.path(SMALL).write_bytes((given / SMALL).read_bytes())
    published.edition("totalsegmentator", "2.0.1-small")
    index(tmp_path, "totalsegmentator", "2.0.1-small", given=given)
    assert fetch(tmp_path, "totalsegmentator", "2.0.1-small", "s0058")["status"] == "ok"
    assert server.faults.requests == [] and (tmp_path / "archives" / SMALL).is_symlink()
    (given / SMALL).rename(given / "moved.zip")
    with pytest.raises(UserError, match="is no longer where it was. Give its folder again as `archives`"):
        fetch(tmp_path, "totalsegmentator", "2.0.1-small", "s0000")
    assert server.faults.requests == []


def test_without_a_published_hash_the_first_file_is_pinned(tmp_path, server, monkeypatch):
    (server.folder / "a.zip").write_bytes(b"PK first")
    file, shelf = RemoteFile("a.zip", (server.url("a.zip"),)), Shelf(tmp_path / "archives")
    path = shelf.get(file)
    assert shelf.get(file) == path and len(server.faults.requests) == 1
    path.unlink()
    (server.folder / "a.zip").write_bytes(b"PK other")
    with pytest.raises(UserError, match=r"has sha256 .*, but the one first used here had .*a\.zip\.lock\.json"):
        shelf.get(file)
    (tmp_path / "archives/a.zip").write_bytes(b"PK first")
    assert shelf.get(file) == path


def test_without_a_published_hash_what_is_damaged_is_not_pinned(tmp_path, server):
    write_zip(server.folder / "a.zip", {"1.bin": b"one" * 9, "2.bin": bytes(range(256))})
    file, shelf = RemoteFile("a.zip", (server.url("a.zip"),)), Shelf(tmp_path / "archives")
    server.faults.spoil, server.faults.spoil_at = 1, 0.2
    with pytest.raises(TransientError, match=r"a.zip arrived damaged \(at [12].bin\) and was deleted. Run the same"):
        shelf.get(file)
    assert not list((tmp_path / "archives").iterdir())
    assert shelf.get(file).read_bytes() == (server.folder / "a.zip").read_bytes()

    mine = tmp_path / "mine"
    mine.mkdir()
    damaged = bytearray((server.folder / "a.zip").read_bytes())
    damaged[len(damaged) // 5] ^= 0xFF
    (mine / "a.zip").write_bytes(damaged)
    with pytest.raises(UserError, match=r"a.zip is damaged \(at [12].bin\). Delete it"):
        Shelf(tmp_path / "linked", mine).get(file)
    assert (mine / "a.zip").exists()


def test_a_file_behind_no_address_says_where_people_get_it(tmp_path):
    with pytest.raises(UserError, match="cannot be downloaded by a program. Ask its author."):
        Shelf(tmp_path).get(RemoteFile("a.zip", how="Ask its author."))


def test_verse_is_listed_by_patient_and_without_overlap(tmp_path, published):
    """Gone: verse253 (same id), verse020 (same content), the second gl003, 999 (no mask); 255 follows its patient."""
    for name, (prefix, scans) in VERSE.items():
        lone = {f"{prefix}/rawdata/sub-verse999/sub-verse999_ct.nii.gz": packed(phantom(99)[0])}
        write_zip(published.path(name), verse_members(prefix, scans) | lone)
    published.edition("verse", "2020+2019")
    cases = read_index(index(tmp_path, "verse", "2020+2019"))
    assert {case.id: (case.subject, case.split) for case in cases.values()} == {
        "sub-gl003_dir-ax": ("sub-gl003", "train"),
        "sub-verse401_split-verse253": ("sub-verse401", "train"),
        "sub-verse401_split-verse254": ("sub-verse401", "train"),
        "sub-verse500_dir-ax": ("sub-verse500", "validation"),
        "sub-verse500_dir-sag": ("sub-verse500", "validation"),
        "sub-gl108_dir-ax": ("sub-gl108", "test"),
        "sub-verse112": ("sub-verse112", "test"),
        "sub-verse004": ("sub-verse004", "train"),
        "sub-verse401_split-verse255": ("sub-verse401", "train"),
        "sub-verse037": ("sub-verse037", "test"),
    }


def test_verse_comes_out_labelled_by_name(tmp_path, server, published):
    for name, (prefix, scans) in VERSE.items():
        write_zip(published.path(name), verse_members(prefix, scans))
    published.edition("verse", "2020")
    server.faults.refuse, server.faults.refusals = (429, "1"), 1
    index(tmp_path, "verse", "2020")
    pins = sorted(path.name for path in (tmp_path / "archives").glob("*.lock.json"))
    assert pins == [f"dataset-verse20{split}.zip.lock.json" for split in ("test", "training", "validation")]
    record = fetch(tmp_path, "verse", "2020", "sub-verse401_split-verse254")
    assert record["license"] == "CC-BY-SA-4.0" and record["subject_key"] == subject_key("verse", "sub-verse401")
    masks, record, _ = labelled(tmp_path, "sub-verse401_split-verse254", ["vertebrae", "sacrum", "kidney"])
    _, label = phantom(3)
    assert record["label_status"][2:] == [0, 0]
    assert 27 * masks["vertebrae"].sum() == pytest.approx(15 * (label > 0).sum(), rel=0.15), "T13 counts as a vertebra"


def test_ctpelvic1k_hips_are_named_by_where_they_are(tmp_path, published):
    pelvis_archives(published)
    cases = read_index(index(tmp_path, "ctpelvic1k", "6+7"))
    assert sorted(cases) == ["CLINIC_0001", "CLINIC_0002", "CLINIC_metal_0000", "CLINIC_metal_0001"]
    names = {}
    for case in cases:
        record = fetch(tmp_path, "ctpelvic1k", "6+7", case)
        assert record["status"] == "ok" and not record["ct"].startswith("/")
        assert (tmp_path / "fetch" / case / record["ct"]).is_file()
        names[case] = record["label_names"]
    assert names["CLINIC_0001"] == {"1": "sacrum", "2": "hip_right", "3": "hip_left", "4": "lumbar_spine"}
    assert names["CLINIC_0002"] == {"1": "sacrum", "2": "hip_left", "3": "hip_right", "4": "lumbar_spine"}
    assert names["CLINIC_metal_0001"] == {}
    masks, record, _ = labelled(tmp_path, "CLINIC_0002", ["hip", "sacrum", "vertebrae"])
    _, ids = hips(2, right=3)
    assert 27 * masks["hip"].sum() == pytest.approx(15 * np.isin(ids, [2, 3]).sum(), rel=0.25)
    assert record["label_status"][-1] == 0, "the lumbar spine alone is not the vertebrae"


def test_one_hip_is_told_by_the_sacrum_or_not_at_all(tmp_path):
    for right in (2, 3):
        _, ids = hips(0, right=right)
        for gone in (2, 3):
            (tmp_path / "mask.nii.gz").write_bytes(packed(np.where(ids == gone, 0, ids).astype(np.uint8)))
            assert hip_names(tmp_path / "mask.nii.gz")[right] == "hip_right"
    lonely = np.where(ids == 2, 2, 0).astype(np.uint8)
    (tmp_path / "mask.nii.gz").write_bytes(packed(lonely))
    with pytest.raises(CaseError, match="E_LR_INCONSISTENT"):
        hip_names(tmp_path / "mask.nii.gz")


def test_a_ct_whose_one_hip_cannot_be_named_is_set_aside_with_its_hash(tmp_path, published, monkeypatch):
    def lonely(seed, *, right):
        ct, ids = hips(seed, right=right)
        return ct, np.where(ids == 2, 2, 0).astype(np.uint8)

    monkeypatch.setattr("tests.public_sets.hips", lonely)
    pelvis_archives(published)
    index(tmp_path, "ctpelvic1k", "6+7")
    record = fetch(tmp_path, "ctpelvic1k", "6+7", "CLINIC_0001")
    content = packed(hips(1, right=2)[0])
    assert (record["code"], record["fetched_sha256"]) == ("E_LR_INCONSISTENT", hashlib.sha256(content).hexdigest())


def test_a_split_by_patient_is_always_the_same_and_about_80_10_10():
    splits = [split_of("d", f"p{n}") for n in range(2000)]
    assert splits == [split_of("d", f"p{n}") for n in range(2000)]
    assert splits.count("train") == pytest.approx(1600, abs=60)
    assert splits.count("validation") == pytest.approx(200, abs=50)


def entry(source, **keys):
    return {"cohort": [{"source": source, "label_scheme": "totalsegmentator_v2", **keys}], "derive": []}


def test_a_plan_knows_its_cases_once_they_are_listed(tmp_path, published):
    write_zip(published.path(SMALL), totalsegmentator_members(TOTAL))
    published.edition("totalsegmentator", "2.0.1-small")
    config = entry("totalsegmentator", version="2.0.1-small", archives="zips")
    plan = make_plan(
        config | {"derive": [{"parent": "s0000", "train": 1, "family_validation": 0, "family": 0}]}, tmp_path
    )
    (path,) = plan.unknown
    assert plan.cases == {} and plan.derived == {} and str(path) == "results/sources/totalsegmentator-2.0.1-small.json"
    assert plan.indexes[path] == ("--source=totalsegmentator", "--version=2.0.1-small", f"--from={tmp_path / 'zips'}")
    (tmp_path / path).parent.mkdir(parents=True)
    index(tmp_path, "totalsegmentator", "2.0.1-small").rename(tmp_path / path)
    plan = make_plan(config, tmp_path)
    assert {name: case.split for name, case in plan.cases.items()} == {
        "s0000": "train", "s0011": "validation", "s0058": "test",
    }  # fmt: skip
    assert plan.cases["s0000"].inputs == (path,) and plan.unknown == ()
    splits = lambda **keys: {  # noqa: E731
        name: case.split
        for name, case in make_plan(entry("totalsegmentator", version="2.0.1-small", **keys), tmp_path).cases.items()
    }
    assert splits(limit=2) == {"s0000": "train", "s0011": "validation"}
    assert splits(split="test") == dict.fromkeys(TOTAL, "test")
    assert splits(cases={"s0058": "train"}) == {"s0058": "train"}
    with pytest.raises(UserError, match="has no usable case 's9999'; the 3 it has .* from s0000 to s0058"):
        splits(cases={"s9999": "train"})
    with pytest.raises(UserError, match=r"case s0000 is licensed CC-BY-4.0; license_allow has: CC0-1.0"):
        make_plan(config | {"license_allow": ["CC0-1.0"]}, tmp_path)
    assert make_plan(config | {"license_allow": ["CC-BY-4.0"]}, tmp_path).cases


def test_unknown_versions_and_sources_without_archives_are_named(tmp_path):
    with pytest.raises(UserError, match="has no version '3'; expected one of: 2.0.1, 2.0.1-small"):
        make_plan(entry("totalsegmentator", version="3"), tmp_path)
    with pytest.raises(UserError, match="source 'folder' has no archives; expected one of: totalsegmentator, verse"):
        get_edition("folder")


def test_every_edition_states_what_a_user_must_know():
    for name, source in SOURCES.items():
        assert len(source.about) > 20 and bool(source.plan) != bool(source.editions), name
        for edition in source.editions.values():
            assert edition.license and edition.attribution and edition.mixing and edition.doi
            assert (TABLES / f"{edition.label_scheme}.tsv").is_file()
            for file in edition.files:
                assert all(url.startswith("https://") and url.endswith(file.name) for url in file.urls)
                assert len(file.md5) in (0, 32) and len(file.sha256) in (0, 64)


def test_the_label_tables_of_the_spine_sets():
    verse, ctspine = load_scheme("verse"), load_scheme("ctspine1k")
    assert (verse[1], verse[7], verse[8], verse[19], verse[20], verse[24], verse[25], verse[28]) == tuple(
        f"vertebrae_{name}" for name in ("C1", "C7", "T1", "T12", "L1", "L5", "L6", "T13")
    )
    assert {26, 27}.isdisjoint(verse) and ctspine == {value: name for value, name in verse.items() if value <= 25}
    assert read_table(TABLES / "ctpelvic1k.tsv")[0] == {"id": "1", "name": "sacrum"}


def write_spine(folder):
    for collection, names in {
        "COLONOG": ["1.3.6.1.4.0001", "1.3.6.1.4.0002"],
        "liver": ["liver_1"],
        "VerSe": ["v1"],
    }.items():
        for seed, name in enumerate(names):
            ct, label = phantom(seed)
            for kind, suffix, array in (("volumes", "", ct), ("labels", "_seg", (label == BALL) * np.uint8(22))):
                path = folder / f"rawdata/{kind}/{collection}/{name}{suffix}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(packed(array))
    (folder / "rawdata/labels/liver/liver_1_seg.nii.gz").unlink()
    (folder / "data_split.txt").write_text(
        "trainset:\n1.3.6.1.4.0001.nii.gz\ntest_private:\n1.3.6.1.4.0002_seg.nii.gz\n"
    )


def test_ctspine1k_comes_from_the_users_folder(tmp_path):
    with pytest.raises(UserError, match="cannot be downloaded by a program; its folder must be given as `archives`"):
        index(tmp_path, "ctspine1k", "1")
    write_spine(tmp_path / "mine")
    cases = read_index(index(tmp_path, "ctspine1k", "1", given=tmp_path / "mine"))
    assert {case.id: case.split for case in cases.values()} == {"1.3.6.1.4.0001": "train", "1.3.6.1.4.0002": "test"}
    assert fetch(tmp_path, "ctspine1k", "1", "1.3.6.1.4.0001")["license"] == "CC-BY-NC-SA-4.0"
    masks, record, _ = labelled(tmp_path, "1.3.6.1.4.0001", ["vertebrae"])
    assert record["label_status"] == [3, 3] and masks["vertebrae"].any()
    ct, mask = (Path(cases["1.3.6.1.4.0002"].files[role]) for role in ("ct", "label"))
    mask.unlink()
    record = fetch(tmp_path, "ctspine1k", "1", "1.3.6.1.4.0002")
    assert (record["code"], record["fetched_sha256"]) == ("E_MISSING", file_sha256(ct))
    ct.unlink()
    record = fetch(tmp_path, "ctspine1k", "1", "1.3.6.1.4.0002")
    assert record["code"] == "E_MISSING" and "fetched_sha256" not in record
    assert read_splits("test_public\na.nii b.nii.gz\n") == {"a": "validation", "b": "validation"}


FOLDER = {"dataset": "mine", "license": "CC0-1.0", "attribution": "me"}


def found(tmp_path, pattern, **keys):
    plan = make_plan(entry("folder", pattern=pattern, **FOLDER, **keys), tmp_path)
    return {name: dict(part[2:].split("=", 1) for part in case.fetch) for name, case in plan.cases.items()}


def test_a_folder_is_found_by_its_pattern(tmp_path):
    for name in (
        "cts/p1/a/ct.nii.gz",
        "cts/p1/b/ct.nii.gz",
        "cts/p2/c d/ct.nii.gz",
        "cts/p2/c d/seg.nii.gz",
        "cts/p1/a/seg.nii.gz",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for root in ("", f"{tmp_path}/"):
        cases = found(
            tmp_path, root + "cts/{subject}/{case}/ct.nii.gz", label_pattern=root + "cts/{subject}/{case}/seg.nii.gz"
        )
        assert sorted(cases) == ["a", "b", case_id("c d")]
        assert cases["a"]["ct"] == str(tmp_path / "cts/p1/a/ct.nii.gz")
        assert cases["a"]["label"] == str(tmp_path / "cts/p1/a/seg.nii.gz") and "label" not in cases["b"]
        assert cases["a"]["subject-key"] == cases["b"]["subject-key"] == subject_key("mine", "p1")
        odd = cases[case_id("c d")]
        assert (odd["ct"], odd["label"]) == tuple(str(tmp_path / f"cts/p2/c d/{name}.nii.gz") for name in ("ct", "seg"))
    assert found(tmp_path, "cts/p1/{case}", split="train")["a"]["ct"] == str(tmp_path / "cts/p1/a"), "a DICOM folder"
    assert sorted(found(tmp_path, "cts/*/{case}/s*.nii.gz", split="train"))[0] == "a"


ODD = ["a b", "a;touch P", "$(id)", "{case}", "é", "CON", "-rf", "new\nline", "x" * 65, ".hidden", "a'\"b"]


@pytest.mark.parametrize("way", ["pattern", "csv"])
def test_cases_with_odd_names_go_on_under_a_generated_id(tmp_path, way):
    """Their own fetch command finds the file; the id tells nothing of the name and is the same both ways."""
    for name in ODD:
        (tmp_path / "cts" / name).mkdir(parents=True)
        (tmp_path / "cts" / name / "ct.nii.gz").write_bytes(name.encode())
    with (tmp_path / "cts.csv").open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([("case", "ct"), *((name, f"cts/{name}/ct.nii.gz") for name in ODD)])
    keys = {"pattern": "cts/{case}/ct.nii.gz"} if way == "pattern" else {"csv": "cts.csv"}
    plan = make_plan(entry("folder", **FOLDER, **keys), tmp_path)
    assert set(plan.cases) == {case_id(name) for name in ODD} and len(plan.cases) == len(ODD)
    for name in ODD:
        case = case_id(name)
        assert re.fullmatch(r"u-[0-9a-f]{12}", case)
        assert main(["fetch", *plan.cases[case].fetch, "--out", str(tmp_path / "fetch" / case)]) == 0
        record = json.loads((tmp_path / "fetch" / case / "case.json").read_text())
        assert record["status"] == "ok" and record["case"] == case
        assert record["fetched_sha256"] == hashlib.sha256(name.encode()).hexdigest()


def test_a_name_that_is_no_text_costs_one_case(tmp_path):
    place = Path(os.fsdecode(os.fsencode(tmp_path / "cts") + b"/caf\xe9"))
    try:
        place.mkdir(parents=True)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    (place / "ct.nii.gz").write_bytes(b"ct")
    cases = found(tmp_path, "cts/{case}/ct.nii.gz")
    (case,) = cases
    assert case.startswith("u-") and "ct" not in cases[case]
    fetched = make_plan(entry("folder", pattern="cts/{case}/ct.nii.gz", **FOLDER), tmp_path).cases[case].fetch
    assert main(["fetch", *fetched, "--out", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out/case.json").read_text())
    assert record["code"] == "E_MISSING" and "no UTF-8 text" in record["reason"]


def test_two_cases_of_one_odd_name_are_told_by_their_places(tmp_path):
    for name in ("p1/a b", "p1/c", "p2/a b"):
        (tmp_path / "cts" / name).mkdir(parents=True)
    with pytest.raises(UserError, match="CTs 1 and 3 in the alphabetical list of what pattern 'cts/.* finds") as caught:
        found(tmp_path, "cts/*/{case}")
    assert "a b" not in str(caught.value) and case_id("a b") in str(caught.value) and "CSV" not in str(caught.value)
    (tmp_path / "cts.csv").write_text("case,ct\na b,x\nc,y\na b,z\n")
    with pytest.raises(UserError, match="lines 2 and 4 of cts.csv have the same case id"):
        make_plan(entry("folder", csv="cts.csv", **FOLDER), tmp_path)


def test_an_orientation_stated_for_a_folder_reaches_the_cube(tmp_path):
    """A file without one is set aside; stated, cube and labels are those of the file that says so itself."""
    cubes, labels = {}, {}
    for name, codes in (("said", 1), ("unsaid", 0)):
        (tmp_path / name).mkdir()
        ct, label = (tmp_path / name / f"{kind}.nii.gz" for kind in ("ct", "label"))
        hu, ids = phantom(1)
        for array, path in ((hu, ct), ((ids == BALL).astype(np.uint8) * 5, label)):
            image = nib.Nifti1Image(array.T, np.diag([-3.0, 3, 3, 1]))
            image.set_sform(image.affine, codes)
            image.set_qform(image.affine, codes)
            nib.save(image, path)
        for option in ([], ["--assume-orientation", "LAS"]):
            out = tmp_path / f"{name}{len(option)}"
            fetch_one = ["fetch", "--case", name, "--ct", str(ct), "--label", str(label), "--out", str(out)]
            assert main([*fetch_one, *option]) == 0
            assert main(["ingest", str(out / "case.json"), "--cube", "16", "--out", str(out / "i")]) == 0
            record = json.loads((out / "i/case.json").read_text())
            if record["status"] != "ok":
                assert (name, option, record["code"]) == ("unsaid", [], "E_NO_ORIENTATION")
                continue
            cubes[name, bool(option)] = voxels(out / "i/ct.nii.gz")
            names = ["--structures", "liver", "--out", str(out / "l")]
            assert main(["label", str(out / "i/case.json"), *names]) == 0
            labels[name, bool(option)] = voxels(out / "l/label.nii.gz")
    assert set(cubes) == {("said", False), ("said", True), ("unsaid", True)} and labels["said", False].any()
    for told in cubes:
        np.testing.assert_array_equal(cubes[told], cubes["said", False])
        np.testing.assert_array_equal(labels[told], labels["said", False])
    planned = make_plan(entry("folder", pattern="{case}/ct.nii.gz", **FOLDER, assume_orientation="LAS"), tmp_path)
    assert all("--assume-orientation=LAS" in case.fetch for case in planned.cases.values())
    assert main(["fetch", "--case", "a", "--ct", "x", "--assume-orientation", "LAA", "--out", str(tmp_path / "o")]) == 2


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"pattern": "cts/*.nii.gz"}, "expected '{case}' once"),
        ({"pattern": "{case}/{case}.nii"}, "expected '{case}' once"),
        ({"pattern": "{name}/{case}.nii"}, "expected '{case}' once"),
        ({"pattern": "{case}.nii"}, "finds nothing. It counts from where snakemake runs"),
        ({"pattern": "{case}.nii", "csv": "a.csv"}, "needs either 'csv' or 'pattern'"),
        ({}, "needs either 'csv' or 'pattern'"),
    ],
)
def test_patterns_that_cannot_be_meant_are_named(tmp_path, keys, words):
    with pytest.raises(UserError, match=words):
        make_plan(entry("folder", **FOLDER, **keys), tmp_path)


def test_the_workflow_lists_then_fetches_and_is_quiet_after(tmp_path):
    """One config line per source; a dry run downloads nothing; the archives lie on disk, as `archives` says."""
    for name in VERSE:
        (tmp_path / "zips").mkdir(exist_ok=True)
        write_zip(tmp_path / "zips" / name, verse_members(*VERSE[name]))
    cohort = [{"source": "verse", "version": "2020", "archives": "zips", "limit": 3}]
    others = {"structures": ["vertebrae"], "simulators": {"cone": {"beam": "cone", "pixel_mm": 4.5}}}
    write_config(tmp_path, cohort=cohort, **others, derive=[{"parent": "sub-gl003_dir-ax", "train": 1}])
    dry = run(tmp_path, "shards", "-n")
    assert dry.returncode == 0 and jobs(dry)["index"] == 1 and "fetch_case" not in jobs(dry), dry.stderr
    assert not (tmp_path / "results/archives").exists()
    done = run(tmp_path, "fetch")
    assert done.returncode == 0, done.stderr
    records = sorted(path.parent.name for path in tmp_path.glob("results/fetch/*/case.json"))
    assert records == ["sub-gl003_dir-ax", "sub-gl108_dir-ax", "sub-verse112"]
    again = run(tmp_path, "fetch", "-n")
    assert "Nothing to be done" in again.stdout + again.stderr and jobs(again) == {}
    (tmp_path / "zips").rename(tmp_path / "moved")
    write_config(tmp_path, cohort=[cohort[0] | {"archives": "moved"}], **others)
    assert run(tmp_path, "fetch").returncode == 0
    assert "Nothing to be done" in (again := run(tmp_path, "fetch", "-n")).stdout + again.stderr
