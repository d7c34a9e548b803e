"""LIDC-IDRI and NLST through a stand-in for idc-index: what is asked, what is downloaded, and NLST's labels by name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.errors import CaseError, TransientError, UserError
from pipeline.fetch import fetch_case, fetch_file
from pipeline.read import read_label
from pipeline.sources import get_edition
from pipeline.sources.contract import read_index, write_index
from pipeline.sources.idc import label_by_scheme, on_lattice
from pipeline.sources.shelf import Shelf
from pipeline.structures import load_scheme
from tests.pipeline.read_cases import AFFINE, SENTINEL, SHAPE, ct_phantom
from tests.pipeline.segmentations import save as save_segmentation
from tests.pipeline.segmentations import segment, segmentation
from tests.pipeline.test_read_dicom import save, series

IDS = {name: value for value, name in load_scheme("totalsegmentator_v1").items()}
SEGMENTS = [
    segment(1, "Kidney", f"of {SENTINEL}", "64033007", "left"),
    segment(2, "Kidney", f"of {SENTINEL}", "64033007", "right"),
    segment(3, "lobe", "", "10200004"),
    segment(4, "Gallbladder"),
]


def masks() -> dict[int, np.ndarray]:
    """The patient's left is where x is small: kidney 1 at i = 5..7, kidney 2 at 15..17; the gallbladder lies in the liver."""
    found = {number: np.zeros(SHAPE, bool) for number in range(1, 5)}
    found[1][5:8, 6:9, 2:6] = found[2][15:18, 6:9, 3:7] = True
    found[3][9:15, 10:16, 7:13] = found[4][10:12, 12:14, 8:12] = True
    return found


@pytest.fixture
def idc(monkeypatch):
    """A stand-in for idc-index: a patient with a plain id, and one whose id cannot be a file name and who has no labels."""
    state = types.SimpleNamespace(queries=[], series={}, online=True, version="v25", indexes=[])
    rows = [
        {"PatientID": "100012", "crdc_series_uuid": "5f3a", "instanceCount": 3, "segmentation": "9e11"},
        {"PatientID": "a/b", "crdc_series_uuid": "77c0", "instanceCount": 3, "segmentation": ""},
    ]
    state.rows = rows

    class Client:
        def get_idc_version(self):
            return state.version

        def fetch_index(self, name):
            state.indexes.append(name)
            if not state.online:
                raise ConnectionError("https://secret.example/...")

        def sql_query(self, query):
            state.queries.append(query)
            return types.SimpleNamespace(to_dict=lambda orient: rows)

        def download_from_selection(self, *, crdc_series_uuid, downloadDir, dirTemplate, **_):
            assert dirTemplate is None and len(crdc_series_uuid) == 1
            for number, content in enumerate(state.series.get(crdc_series_uuid[0], [b"x"] * 3)):
                (Path(downloadDir) / f"{number}.dcm").write_bytes(content)

    monkeypatch.setitem(sys.modules, "idc_index", types.SimpleNamespace(IDCClient=Client))
    return state


def index(tmp_path, source):
    path = tmp_path / f"{source}.json"
    write_index(get_edition(source, "")[1], Shelf(tmp_path / "archives"), path)
    return path


def fetch(tmp_path, source, case):
    places = {"index": tmp_path / f"{source}.json", "shelf": Shelf(tmp_path / "archives")}
    return fetch_case(case, "train", tmp_path / "fetch" / case, source=source, version="", **places)


def test_idc_gives_one_regular_series_per_patient_of_the_pinned_version(tmp_path, idc):
    cases = read_index(index(tmp_path, "lidc"))
    assert {case.id: case.subject for case in cases.values()} == {"100012": "100012", "77c0": "a/b"}
    (query,) = idc.queries
    for part in (
        "'lidc_idri'",
        "'CC BY 3.0'",
        "regularly_spaced_3d_volume",
        "GantryDetectorTilt",
        "slice_spacing_mm <= 3",
        "analysis_result_id = 'none'",
    ):
        assert part in query
    record = fetch(tmp_path, "lidc", "77c0")
    assert (record["ct"], record["label"], record["dataset"]) == ("ct", None, "lidc-idri") and "a/b" not in str(record)
    idc.series["5f3a"] = [b"x", b"x"]
    with pytest.raises(TransientError, match="2 of 3 slices of 100012 arrived"):
        fetch(tmp_path, "lidc", "100012")
    idc.online = False
    with pytest.raises(TransientError, match="could not be downloaded: ConnectionError$"):
        index(tmp_path, "lidc")
    idc.version = "v26"
    with pytest.raises(UserError, match="knows IDC v26; expected v25"):
        index(tmp_path, "lidc")


def test_idc_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "idc_index", None)
    with pytest.raises(UserError, match=r"source nlst needs the package idc-index.*pip install 'xr2ct\[idc\]'"):
        index(tmp_path, "nlst")


def nlst(tmp_path, idc, affine=AFFINE, segments=SEGMENTS, **options):
    """One patient of NLST, its CT and its segmentation on the server."""
    ct = save(tmp_path / "served", series())
    idc.series["5f3a"] = [path.read_bytes() for path in sorted(ct.iterdir())]
    idc.rows[0]["instanceCount"] = len(idc.series["5f3a"])
    path = save_segmentation(tmp_path / "seg", segmentation(masks(), affine, segments, shuffle=5, **options))
    idc.series["9e11"] = [path.read_bytes()]
    index(tmp_path, "nlst")
    return fetch(tmp_path, "nlst", "100012")


def test_nlst_brings_its_segmentations_as_labels_by_name(tmp_path, idc):
    record = nlst(tmp_path, idc)
    assert "analysis_result_id = 'totalsegmentator_ct_segmentations'" in idc.queries[0] and "seg_index" in idc.indexes
    assert (record["status"], record["label_scheme"], record["license"]) == ("ok", "totalsegmentator_v1", "CC-BY-4.0")
    assert not (tmp_path / "fetch/100012/segmentation").exists() and SENTINEL not in str(record)
    volume = read_label(tmp_path / "fetch/100012/label.nii.gz")
    assert set(np.unique(volume.data)) == {0, IDS["kidney_left"], IDS["kidney_right"], IDS["liver"], IDS["gallbladder"]}

    folder = tmp_path / "fetch/100012"
    grid = ["--cube", "32", "--spacing-mm", "2", "--out", str(tmp_path / "ingest")]
    assert main(["ingest", str(folder / "case.json"), *grid]) == 0
    names = ["kidney", "liver", "spleen", "vertebrae", "costal_cartilages"]
    assert (
        main(["label", str(tmp_path / "ingest/case.json"), "--structures", *names, "--out", str(tmp_path / "label")])
        == 0
    )
    done = json.loads((tmp_path / "label/case.json").read_text())
    assert done["status"] == "ok", done["reason"]
    assert done["label_status"] == [3, 3, 3, 1, 1, 0], "what version 1 knew and did not find is absent, not unknown"
    image = nib.load(tmp_path / "label/label.nii.gz")
    ids, affine = np.asarray(image.dataobj), image.affine
    for value, numbers in {1: (1, 2), 2: (3,)}.items():
        truth = np.argwhere(np.any([masks()[number] for number in numbers], axis=0) & ~masks()[4])
        assert 8 * (ids == value).sum() == pytest.approx(15 * len(truth), rel=0.3)
        centre = affine @ [*np.argwhere(ids == value).mean(axis=0), 1]
        np.testing.assert_allclose(centre[:3], (AFFINE @ [*truth.mean(axis=0), 1])[:3], atol=1.2)


def test_a_case_without_a_segmentation_brings_no_label(tmp_path, idc):
    index(tmp_path, "nlst")
    assert fetch(tmp_path, "nlst", "77c0")["label"] is None


def test_labels_a_hair_beside_their_ct_are_put_onto_it_and_others_are_not(tmp_path, idc):
    """Flipped axes stay flipped, 0.05 mm is snapped, 0.5 mm is left for the label stage to refuse."""
    ct = save(tmp_path / "ct", series())
    flip = np.diag([1.0, -1, 1, 1])
    flip[1, 3] = SHAPE[1] - 1
    for shift_mm, code in ((0.05, None), (0.5, "E_LABEL_AFFINE")):
        affine = AFFINE @ flip
        affine[0, 3] += shift_mm
        flipped = {number: mask[:, ::-1] for number, mask in masks().items()}
        path = save_segmentation(tmp_path / "seg", segmentation(flipped, affine, SEGMENTS))
        label_by_scheme(path, ct, load_scheme("totalsegmentator_v1"), tmp_path / "label.nii.gz")
        volume = read_label(tmp_path / "label.nii.gz")
        beside = volume.affine[0, 3] - AFFINE[0, 3]
        assert beside == pytest.approx(0 if code is None else shift_mm, abs=1e-5)
        kidney = np.argwhere(volume.data == IDS["kidney_left"]).mean(axis=0)
        truth = AFFINE @ [*np.argwhere(masks()[1]).mean(axis=0), 1]
        np.testing.assert_allclose((volume.affine @ [*kidney, 1])[:3], truth[:3] + [beside, 0, 0], atol=1e-3)
    turned = AFFINE.copy()
    turned[:2, :2] = AFFINE[:2, :2] @ [[np.cos(0.01), -np.sin(0.01)], [np.sin(0.01), np.cos(0.01)]]
    assert on_lattice(turned, SHAPE, AFFINE) is turned


@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_a_bad_segmentation_sets_its_case_aside(tmp_path, idc, damage):
    segments = [*SEGMENTS[:3], segment(4, "Tumour", "", "108369006")] if damage == "foreign" else SEGMENTS
    path = save_segmentation(tmp_path / "seg", segmentation(masks(), AFFINE, segments))
    ct = save(tmp_path / "ct", series())
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(CaseError, match="E_LABEL_VALUES: segment 4 is no structure|E_DICOM_CODEC|E_TRUNCATED"):
        label_by_scheme(path, ct, load_scheme("totalsegmentator_v1"), tmp_path / "label.nii.gz")
    assert not (tmp_path / "label.nii.gz").exists()


def test_a_users_segmentation_is_a_label_map_with_its_own_names(tmp_path):
    ct = tmp_path / "ct.nii.gz"
    nib.Nifti1Image(ct_phantom(), AFFINE).to_filename(ct)
    segments = [*SEGMENTS[:3], segment(4, f"Tumour of {SENTINEL}")]
    dataset = segmentation(masks(), AFFINE, segments)
    dataset.PatientName = SENTINEL
    path = save_segmentation(tmp_path / "seg.dcm", dataset)
    said = {"dataset": "mine", "license": "CC0-1.0", "attribution": "me", "label_scheme": "totalsegmentator_v2"}
    record = fetch_file("a", "train", tmp_path / "a", ct=str(ct), label=str(path), key="", **said)
    assert record["label_names"] == {"1": "kidney_left", "2": "kidney_right", "3": "liver", "4": "segment_4"}
    assert record["label"] == "label.nii.gz" and set(np.unique(read_label(tmp_path / "a/label.nii.gz").data)) == set(
        range(5)
    )
    path.write_bytes(path.read_bytes()[:-300])
    record = fetch_file("a", "train", tmp_path / "b", ct=str(ct), label=str(path), key="", **said)
    assert record["status"] == "quarantined" and record["code"] in ("E_DICOM_CODEC", "E_TRUNCATED")


@pytest.mark.skipif(not shutil.which("itkimage2segimage"), reason="needs dcmqi (pip install dcmqi)")
@pytest.mark.parametrize("flip", [False, True], ids=["as the CT", "rows from back to front"])
def test_what_dcmqi_writes_as_it_did_for_nlst(tmp_path, flip):
    """The tool of the published segmentations, on a CT that lies obliquely, with its labels as dcm2niix lays them out."""
    angle = np.cos(0.2), np.sin(0.2)
    affine = AFFINE.copy()
    affine[:2, :3] = np.array([[angle[0], -angle[1]], [angle[1], angle[0]]]) @ AFFINE[:2, :3]
    images = series(affine=affine)
    for one in images:
        one.StudyInstanceUID, one.FrameOfReferenceUID, one.SeriesNumber = "1.2.3.4", "1.2.3.5", 2
        for name in ("StudyDate", "StudyTime", "PatientBirthDate", "PatientSex", "StudyID", "ReferringPhysicianName"):
            setattr(one, name, "")
    ct = save(tmp_path / "ct", images)
    ids = np.zeros(SHAPE, np.uint8)
    words = {"kidney_left": ("Left kidney", "64033007"), "gluteus_minimus_left": ("Left gluteus minimus", "78333006")}
    words |= {"gluteus_medius_left": ("Left gluteus medius", "78333006"), "heart_myocardium": ("Muscle", "74281007")}
    for number, name in enumerate(words):
        ids[2 + 5 * number : 5 + 5 * number, 3 : 7 + number, 2 + number : 9] = IDS[name]
    turn = np.diag([1.0, -1, 1, 1])
    turn[1, 3] = SHAPE[1] - 1
    written = (ids[:, ::-1], affine @ turn) if flip else (ids, affine)
    nib.Nifti1Image(np.ascontiguousarray(written[0]), written[1]).to_filename(tmp_path / "ids.nii.gz")
    snomed = {"CodingSchemeDesignator": "SCT", "CodeMeaning": "a meaning"}
    kind = {"SegmentAlgorithmType": "AUTOMATIC", "SegmentAlgorithmName": "TotalSegmentator"}
    kind["SegmentedPropertyCategoryCodeSequence"] = snomed | {"CodeValue": "123037004"}
    segments = [
        kind
        | {"labelID": IDS[name], "SegmentDescription": text}
        | {"SegmentedPropertyTypeCodeSequence": snomed | {"CodeValue": value}}
        for name, (text, value) in words.items()
    ]
    about = {
        "ContentCreatorName": "IDC",
        "ClinicalTrialSeriesID": "0",
        "ClinicalTrialTimePointID": "1",
        "SeriesNumber": "42",
    }
    about |= {"SeriesDescription": "s", "InstanceNumber": "1", "BodyPartExamined": "WHOLEBODY"}
    (tmp_path / "meta.json").write_text(json.dumps(about | {"segmentAttributes": [segments]}))
    command = ["itkimage2segimage", "--inputImageList", "ids.nii.gz", "--inputDICOMDirectory", "ct"]
    command += ["--outputDICOM", "seg.dcm", "--inputMetadata", "meta.json", "--skip"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    label_by_scheme(tmp_path / "seg.dcm", ct, load_scheme("totalsegmentator_v1"), tmp_path / "label.nii.gz")
    volume = read_label(tmp_path / "label.nii.gz")
    for value in np.unique(ids[ids > 0]):
        found, truth = (np.argwhere(data == value) for data in (volume.data, ids))
        places = [np.round(at @ to[:3, :3].T + to[:3, 3], 2) for at, to in ((found, volume.affine), (truth, affine))]
        assert set(map(tuple, places[0])) == set(map(tuple, places[1]))
