"""S1: a secret in every text that a medical image can carry, and not a trace of it in anything that we write or say."""

from __future__ import annotations

import gzip
import json
import re

import h5py
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary

from pipeline.__main__ import main
from pipeline.plan import make_plan
from tests.pipeline.read_cases import AFFINE, SENTINEL, SHAPE, ct_phantom
from tests.pipeline.records import fetched
from tests.pipeline.segmentations import save as save_segmentation
from tests.pipeline.segmentations import segment, segmentation
from tests.pipeline.test_read_dicom import save, series
from tests.pipeline.test_read_mha import mha_bytes
from tests.pipeline.test_read_nifti import nifti_bytes
from tests.pipeline.test_read_nrrd import nrrd_bytes
from tests.xr2ct.runs import brighter, write_run
from xr2ct.__main__ import main as learn
from xr2ct.shards import Shard

TEXT = {"LO", "SH", "PN", "ST", "LT", "UT", "UC"}
TRACES = re.compile(rb"ZZPHI|19560412|1\.2\.826\.0\.1\.3680043\.8\.498", re.IGNORECASE)
"""The sentinel, a date of birth, and the UIDs of the test series."""
PYDICOM = re.compile(rb"\x02\x00\x12\x00UI..1\.2\.826\.0\.1\.3680043\.8\.498\.1(?![.\d])", re.DOTALL)
"""(0002,0012), by which every file that pydicom writes names pydicom."""


def marked_series() -> list[pydicom.Dataset]:
    """Every text tag of the standard with one value says the sentinel; every date is one of birth."""
    images = series()
    for one in images:
        for tag, (kind, count, _, retired, keyword) in DicomDictionary.items():
            if retired or not keyword or tag in one or tag < 0x00080000 or count != "1":
                continue
            if kind in TEXT:
                one.add_new(tag, kind, SENTINEL)
            elif kind == "DA":
                one.add_new(tag, kind, "19560412")
        one.add_new(0x00091001, "LO", SENTINEL)
    return images


def marked_nifti(data) -> bytes:
    """A NIfTI whose free text and whose extensions (a comment, a whole DICOM header) say the sentinel."""
    image = nib.Nifti1Image(data, AFFINE)
    image.header.set_xyzt_units("mm")
    named = pydicom.Dataset()
    named.PatientName = SENTINEL
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", SENTINEL.encode()))
    image.header.extensions.append(nib.nifti1.Nifti1DicomExtension(2, named))
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = SENTINEL
    return image.to_bytes()


@pytest.fixture(scope="module")
def processed(tmp_path_factory):
    """Good and bad files of every format through ingest, label, cohort and shard, by their commands."""
    folder = tmp_path_factory.mktemp("privacy")
    inputs, out = folder / "inputs", folder / "results"
    inputs.mkdir()
    sources = {"dicom": save(inputs / "a", marked_series())}
    sources["gap"] = save(inputs / "b", marked_series()[:6] + marked_series()[7:])
    cut = save(inputs / "c", marked_series())
    first = sorted(cut.iterdir())[0]
    first.write_bytes(first.read_bytes()[:-400])
    sources["cut"] = cut
    unreadable = save(inputs / "d", marked_series())
    content = (unreadable / "im003").read_bytes()
    (unreadable / "im003").write_bytes(content[: content.index(b"ORIGINAL") + 3])
    sources["header"] = unreadable
    two = marked_series()
    two[3].PatientID = f"{SENTINEL}2"
    sources["patients"] = save(inputs / "e", two)
    files = {
        "nifti": gzip.compress(marked_nifti(ct_phantom())),
        "nifti-dim": nifti_bytes(np.stack([ct_phantom()] * 2, axis=-1)),
        "nifti-header": nifti_bytes(vox_offset=-3),
        "nifti-gzip": gzip.compress(marked_nifti(ct_phantom()))[:-20],
        "nrrd": nrrd_bytes(),
        "nrrd-bad": nrrd_bytes(space_units=f'"{SENTINEL}" "mm" "mm"'),
        "nrrd-worse": nrrd_bytes(sizes=SENTINEL),
        "mha": mha_bytes(pack=True),
        "mha-bad": mha_bytes(ElementType=SENTINEL),
        "mha-worse": mha_bytes(DimSize=SENTINEL),
        "mha-elsewhere": mha_bytes(ElementDataFile=f"{SENTINEL}.raw"),
        "nrrd-elsewhere": nrrd_bytes(data_file=f"{SENTINEL}.raw"),
    }
    for name, data in files.items():
        sources[name] = inputs / name
        sources[name].write_bytes(data)
    return folder, out, sources


def run_stages(folder, out, sources) -> None:
    """Ingest, label, cohort and shard, by their commands."""
    for name, source in sources.items():
        key = {"subject_given": False, "subject_key": f"key-{name}"}
        record = fetched(folder / "fetched" / name, source, case=name, **key)
        assert (
            main(["ingest", str(record), "--cube", "40", "--spacing-mm", "2", "--out", str(out / "ingest" / name)]) == 0
        )
        label = ["label", str(out / "ingest" / name / "case.json"), "--structures", "heart"]
        assert main([*label, "--out", str(out / "label" / name)]) == 0
    records = [str(out / "label" / name / "case.json") for name in sources]
    assert main(["cohort", *records, "--max-quarantine-fraction", "1", "--out", str(out / "cohort")]) == 0
    for name in ("dicom", "nifti"):
        rays = ["--beam", "cone", "--detector-px", "40", "40", "--pixel-mm", "4", "--views", "PA,LAT"]
        rays += ["--out", str(out / "project" / "parallel" / f"{name}.h5")]
        assert main(["project", str(out / "label" / name / "case.json"), *rays]) == 0
    shard = ["shard", *(str(out / "label" / name / "case.json") for name in ("dicom", "nifti"))]
    shard += ["--projections", str(out / "project"), "--simulators", "parallel", "--out", str(out / "shard.h5")]
    assert main(shard) == 0


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_s01_no_trace_of_a_person_in_anything_written_or_said(processed, capfd, caplog):
    folder, out, sources = processed
    said = capfd.readouterr()  # what the making of the files said is none of ours
    caplog.clear()
    run_stages(folder, out, sources)
    said = capfd.readouterr()

    quarantined = (out / "cohort/quarantine.tsv").read_text().splitlines()[1:]
    good = {"dicom", "nifti", "nrrd", "mha"}
    assert {line.split("\t")[0] for line in quarantined} == set(sources) - good
    for text in (said.out, said.err, caplog.text):
        assert not TRACES.search(text.encode())
    assert "quarantined gap" in said.err
    no_trace(out)
    with h5py.File(out / "shard.h5") as file:
        texts = [str(value) for value in file.attrs.values()]
        file.visititems(lambda name, item: texts.extend(str(value) for value in item.attrs.values()))
        texts += [str(file[f"case/{name}"].asstr()[:].tolist()) for name in ("id", "subject_key", "source_sha256")]
    assert not TRACES.search(" ".join(texts).encode())


def no_trace(folder, *texts: str) -> None:
    """Nothing of a person in the names and contents of the files below a folder, packed or not, nor in what was said."""
    for text in texts:
        assert not TRACES.search(text.encode())
    for path in sorted(folder.rglob("*")):
        assert not TRACES.search(str(path.relative_to(folder)).encode())
        if path.is_file():
            content = path.read_bytes()
            content += gzip.decompress(content) if path.suffix == ".gz" else b""
            assert not TRACES.search(PYDICOM.sub(b"", content)), path.name


def marked_segmentation() -> pydicom.Dataset:
    """A DICOM segmentation of the liver and of something whose name is a person's, every text tag marked."""
    masks = {1: np.zeros(SHAPE, bool), 2: np.zeros(SHAPE, bool)}
    masks[1][6:12, 5:12, 4:10], masks[2][14:18, 5:9, 4:10] = True, True
    dataset = segmentation(masks, AFFINE, [segment(1, "Liver", SENTINEL), segment(2, SENTINEL, SENTINEL)])
    for tag, (kind, count, _, retired, keyword) in DicomDictionary.items():
        if kind in TEXT and not retired and keyword and count == "1" and tag > 0x00080000 and tag not in dataset:
            dataset.add_new(tag, kind, SENTINEL)
    for item in dataset.SegmentSequence:
        item.TrackingID = SENTINEL
    return dataset


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_s01_what_a_table_and_a_segmentation_say_of_a_person_stays_there(tmp_path, monkeypatch, capfd, caplog):
    """Case ids and subjects of a CSV, labels of a segmentation: from the plan through the commands to label."""
    ct = tmp_path / "in" / "ct.nii.gz"
    ct.parent.mkdir()
    ct.write_bytes(gzip.compress(marked_nifti(ct_phantom())))
    save_segmentation(tmp_path / "in" / "seg.dcm", marked_segmentation())
    save_segmentation(tmp_path / "in" / "cut.dcm", marked_segmentation())
    cut = (tmp_path / "in" / "cut.dcm").read_bytes()
    (tmp_path / "in" / "cut.dcm").write_bytes(cut[: cut.index(b"Liver") + 30])
    rows = [("good", "seg.dcm"), ("cut", "cut.dcm"), (SENTINEL, "seg.dcm")]
    lines = [f"{case},ct.nii.gz,{label},{SENTINEL}" for case, label in rows]
    (tmp_path / "in" / "cohort.csv").write_text("\n".join(["case,ct,label,subject", *lines]) + "\n")
    capfd.readouterr()
    caplog.clear()
    entry = {"source": "folder", "csv": "in/cohort.csv", "dataset": "mine", "license": "CC0-1.0", "attribution": "me"}
    plan = make_plan({"cohort": [entry | {"label_scheme": "totalsegmentator_v2"}], "derive": []}, tmp_path)
    out, records = tmp_path / "out", {}
    for name, case in plan.cases.items():
        assert not TRACES.search(" ".join((name, *case.fetch)).encode())
        steps = [["fetch", *case.fetch], ["ingest", str(out / "fetch" / name / "case.json"), "--cube", "40"]]
        steps += [["label", str(out / "ingest" / name / "case.json"), "--structures", "liver"]]
        for step in steps:
            assert main([*step, "--out", str(out / step[0] / name)]) == 0
        records[name] = json.loads((out / "label" / name / "case.json").read_text())
    said = capfd.readouterr()
    assert sorted(record["status"] for record in records.values()) == ["ok", "ok", "quarantined"]
    assert records["good"]["label_names"] == {"1": "liver", "2": "segment_2"}
    no_trace(out, said.out, said.err, caplog.text)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_s01_pictures_dicom_and_the_report_of_a_marked_ct(processed, tmp_path, capfd, caplog):
    """X-rays of one file as HDF5, PNG, DICOM and contact sheet; a shard's verification, export, evaluation and report."""
    folder, _, sources = processed
    out = folder / "few"
    capfd.readouterr()
    caplog.clear()
    run_stages(out, out, {name: sources[name] for name in ("dicom", "nifti", "gap")})
    for name in ("dicom", "nifti"):
        volume = ["--volume", str(sources[name])]
        rays = ["--views", "PA,LAT", "--detector-px", "16", "16", "--png", "--dicom"]
        assert main(["project", *volume, *rays, "--out", str(tmp_path / name / "xr.h5")]) == 0
    sheet = ["--kvp", "60", "--size-px", "32", "--out", str(tmp_path / "sheet.png")]
    assert main(["radiographs", "--volume", str(sources["dicom"]), *sheet]) == 0
    assert main(["project", "--volume", str(sources["gap"]), "--out", str(tmp_path / "gap.h5")]) == 2

    (shard,) = out.glob("shard.h5")
    index = write_run(tmp_path / "reconstruct" / "run", Shard(shard), brighter)
    evaluation, page = tmp_path / "evaluate" / "run.csv", tmp_path / "report" / "index.html"
    for command in (
        ["verify", str(shard)],
        [
            "export",
            "--shards",
            str(shard),
            "--layout",
            "x2ct",
            "--simulator",
            "parallel",
            "--out",
            str(tmp_path / "export"),
        ],
        ["evaluate", "--shards", str(shard), "--reconstructions", str(index), "--out", str(evaluation)],
        ["report", "--shards", str(shard), "--evaluations", str(evaluation), "--reconstructions", str(index)]
        + ["--cohort", str(out / "cohort"), "--out", str(page)],
    ):
        assert learn(command) == 0, command[0]
    said = capfd.readouterr()
    assert "E_DICOM_GAP" in said.err + page.read_text() and page.stat().st_size > 10_000
    assert len(list(tmp_path.rglob("*.dcm"))) == 4
    no_trace(tmp_path, said.out, said.err, caplog.text)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_s01_a_folder_named_after_a_person_is_named_in_the_records_alone(tmp_path, capfd, caplog):
    """Where the files lie must be known to the stages; tables, shards and what is said do not tell."""
    inputs, out = tmp_path / SENTINEL, tmp_path / "out"
    inputs.mkdir()
    (inputs / "good").write_bytes(gzip.compress(marked_nifti(ct_phantom())))
    (inputs / "bad").write_bytes(gzip.compress(marked_nifti(ct_phantom()))[:-20])
    sources = {"nifti": inputs / "good", "bad": inputs / "bad", "gone": inputs / "gone"}
    sources["dicom"] = save(inputs / "series", marked_series())
    run_stages(out, out, sources)
    said = capfd.readouterr()
    assert said.err.count("quarantined ") == 2
    (tmp_path / "shown").mkdir()
    for shown in (out / "cohort", out / "shard.h5", out / "project"):
        shown.rename(tmp_path / "shown" / shown.name)
    no_trace(tmp_path / "shown", said.out, said.err, caplog.text)
    assert SENTINEL in (out / "fetched/nifti/fetch/case.json").read_text()


def test_s01_the_sentinel_is_in_the_inputs(processed):
    """The test above could not fail otherwise."""
    _, _, sources = processed
    for name, source in sources.items():
        content = b"".join(path.read_bytes() for path in ([source] if source.is_file() else sorted(source.iterdir())))
        content += gzip.decompress(content) if content[:2] == b"\x1f\x8b" and name != "nifti-gzip" else b""
        assert TRACES.search(content) or name == "nifti-gzip"
    assert sum(element.value == SENTINEL for element in marked_series()[0]) > 500
