"""Regions as a user meets them: one config key, and what the shards then hold lies where it lay in the CT."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from pipeline.files import read_table
from tests.cohorts import run, write_cohort, write_nifti

SHAPE = (40, 30, 36)
AFFINE = np.array([[-2.0, 0, 0, 47], [0, 3.0, 0, 11], [0, 0, 2.5, 400], [0, 0, 0, 1]])
KIDNEYS = {2: ((6, 11), (8, 13), (14, 18)), 3: ((28, 33), (8, 13), (16, 20))}
L2, L3, L4 = 30, 29, 28
SPINE = {L4: ((17, 24), (3, 8), (6, 10)), L3: ((16, 22), (4, 9), (12, 16)), L2: ((17, 23), (5, 10), (18, 22))}
CUT = {L4: ((17, 24), (3, 8), (0, 4)), L3: SPINE[L3]}
"""Boxes of whole voxels, (first, behind the last) per axis of a file that runs to the left, to the front and up."""
GRID = {"shape": 32, "spacing_mm": 1.0}
SIMULATORS = {"parallel": {"beam": "parallel", "backend": "parallel", "detector_px": [32, 32], "pixel_mm": 1.0}}


def write_ct(folder, name, boxes, seed):
    """A noisy body with a structure of 100 HU, its id and 100 HU times the seed in each box; its row of the cohort CSV."""
    ids = np.zeros(SHAPE, np.uint8)
    for value, box in boxes.items():
        ids[tuple(slice(*side) for side in box)] = value
    ct = np.random.default_rng(seed).normal(-1000, 10, SHAPE)
    ct[4:36, 2:28] = np.random.default_rng(seed + 9).normal(-80, 30, (32, 26, 36))
    ct[ids > 0] = 100 + 100 * seed + ids[ids > 0].astype(float)
    write_nifti(folder / f"{name}.nii.gz", np.rint(ct).astype(np.int16).T, AFFINE)
    write_nifti(folder / f"{name}-label.nii.gz", ids.T, AFFINE)
    return {"case": name, "ct": f"{name}.nii.gz", "label": f"{name}-label.nii.gz"}


def two_cts(folder):
    rows = [write_ct(folder, "a", KIDNEYS | SPINE, 1), write_ct(folder, "b", CUT, 2)]
    for row, split in zip(rows, ("train", "test"), strict=True):
        row["split"] = split
    return rows


def middle_mm(box):
    return (AFFINE @ [*((np.array(box).sum(axis=1) - 1) / 2), 1])[:3]


def test_every_vertebra_is_a_case_alone_in_air_at_its_true_place(tmp_path):
    rows = [*two_cts(tmp_path), {"case": "broken", "ct": "a.nii.gz", "label": "b.nii.gz", "split": "test"}]
    write_cohort(
        tmp_path,
        rows,
        region={"kind": "vertebra", "vertebrae": ["L2", "L3", "L4"]},
        structures=["kidney", "vertebrae"],
        grid=GRID,
        simulators=SIMULATORS,
        derive=[{"parent": "a-L3", "train": 1}],
    )
    done = run(tmp_path, "shards")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for path in sorted(tmp_path.glob("results/shards/little/*.h5")):
        with h5py.File(path) as file:
            assert json.loads(file.attrs["config_json"])["region"]["vertebrae"] == ["L2", "L3", "L4"]
            for n, name in enumerate(file["case/id"].asstr()[:].tolist()):
                entries = {key: file[f"case/{key}"][n] for key in ("affine", "source_affine", "subject_key")}
                entries["status"] = file["label_status"][n].tolist()
                found[name] = entries | {"ct": file["ct"][n], "label": file["label"][n], "split": path.name[:5]}
    assert set(found) == {"a-L2", "a-L3", "a-L4", "a-L3-d0001", "b-L3"}
    assert {name: case["split"] for name, case in found.items() if name[0] == "b"} == {"b-L3": "test-"}
    assert len({case["subject_key"] for name, case in found.items() if name[0] == "a"}) == 1
    assert found["a-L3"]["subject_key"] != found["b-L3"]["subject_key"]
    for name, box in (("a-L2", SPINE[L2]), ("a-L3", SPINE[L3]), ("a-L4", SPINE[L4]), ("b-L3", SPINE[L3])):
        case = found[name]
        np.testing.assert_allclose(case["source_affine"], AFFINE)
        np.testing.assert_array_equal(case["affine"][:3, :3], np.eye(3))
        at = (case["affine"] @ np.append(np.argwhere(case["label"] == 2).mean(axis=0)[::-1], 1))[:3]
        np.testing.assert_allclose(at, middle_mm(box), atol=0.3)
        volume = np.prod(np.ptp(box, axis=1)) * 15.0  # mm3 of the source voxels, 1 mm3 each on the cube
        assert (case["label"] == 2).sum() == pytest.approx(volume, rel=0.25)
        bone = (200 if name[0] == "a" else 300) + {"2": L2, "3": L3, "4": L4}[name[-1]]
        assert case["ct"].max() == bone and (case["ct"] == -1024).mean() > 0.85
        assert case["status"] == [3, 1, 3]
    table = {row["case"]: row["code"] for row in read_table(tmp_path / "results/cohort/quarantine.tsv")}
    assert table.pop("b-L2") == "E_REGION_ABSENT" and table.pop("b-L4") == "E_REGION_CUT"
    assert set(table) == {"broken-L2", "broken-L3", "broken-L4"} and len(set(table.values())) == 1
    text = done.stdout + done.stderr + (tmp_path / "results/logs/cohort.log").read_text()
    assert "1 cases do not hold the region whole (E_REGION_ABSENT)" in text and "quarantined broken-L2" in text
    again = run(tmp_path, "shards", "-n")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_only_cts_that_hold_the_structures_go_on_cut_to_their_height(tmp_path):
    rows = [*two_cts(tmp_path), write_ct(tmp_path, "c", KIDNEYS | SPINE, 3) | {"split": "test"}]
    region = {"kind": "structures", "structures": ["kidney"]}
    write_cohort(
        tmp_path, rows, region=region, structures=["kidney", "lumbar_spine"], grid={"shape": 32, "spacing_mm": 3.0}
    )
    done = run(tmp_path, "shards")
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = read_table(tmp_path / "results/cohort/quarantine.tsv")
    assert (row["case"], row["stage"], row["code"]) == ("b", "ingest", "E_REGION_ABSENT")
    with h5py.File(tmp_path / "results/shards/little/test-00000-of-00001.h5") as file:
        assert file["case/id"].asstr()[:].tolist() == ["c"]
        affine, ct, label = file["case/affine"][0], file["ct"][0], file["label"][0]
        assert file["label_status"][0].tolist() == [3, 3, 2]
    # Kidneys fill planes 14 to 19; 10 mm are 4 planes: 425 mm to 457.5 mm, and its middle is the cube's.
    assert affine[2, 3] + 3 * 15.5 == pytest.approx((425 + 457.5) / 2)
    heights = affine[2, 3] + 3 * np.flatnonzero((ct > -1000).any(axis=(1, 2)))
    assert 425 - 3 <= heights[0] <= 425 + 3 and 457.5 - 3 <= heights[-1] <= 457.5 + 3
    voxels = np.argwhere(label == 1)[:, ::-1]
    world = voxels @ affine[:3, :3].T + affine[:3, 3]
    for side, box in ((world[:, 0] < 9, KIDNEYS[3]), (world[:, 0] > 9, KIDNEYS[2])):
        np.testing.assert_allclose(world[side].mean(axis=0), middle_mm(box), atol=1.5)


def fake_totalsegmentator(folder):
    """A package of its name that finds by HU what `write_ct` has put there (seed 1), and counts how often it is asked."""
    package = folder / "site/totalsegmentator"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "config.py").write_text("setup_totalseg = get_config_key = set_config_key = lambda *values: False\n")
    (package / "nnunet.py").write_text("class nnUNetPredictor: pass\n")
    (package / "python_api.py").write_text(
        "from pathlib import Path\n"
        "import nibabel as nib, numpy as np\n"
        "def totalsegmentator(image, output, **options):\n"
        f"    with Path({str(folder / 'asked')!r}).open('a') as log:\n"
        "        print(options['fast'], options['device'], *options['roi_subset'], file=log)\n"
        "    hu = np.rint(image.get_fdata())\n"
        "    return nib.Nifti1Image(np.where(hu >= 228, hu - 200, 0).astype('u1'), image.affine)\n"
    )
    for number in (297, 298):  # 228 HU and more are vertebrae
        (folder / f"weights/Dataset{number}_x").mkdir(parents=True)


def test_a_ct_without_labels_is_labelled_before_its_region_is_cut(tmp_path, monkeypatch):
    fake_totalsegmentator(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "weights"))
    rows = two_cts(tmp_path)
    own = write_ct(tmp_path, "c", SPINE, 1) | {"split": "train"}
    own["ct"], own["label"] = rows[0]["ct"], ""
    config = {"region": {"kind": "spine"}, "structures": ["lumbar_spine"], "grid": {"shape": 32, "spacing_mm": 3.0}}
    write_cohort(tmp_path, [rows[0], own], labels={"missing": "totalsegmentator-fast"}, simulators=SIMULATORS, **config)
    done = run(tmp_path, "shards")
    assert done.returncode == 0, done.stdout + done.stderr
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    fast, device, *classes = asked.split()
    assert (fast, device, len(classes)) == ("True", "cpu", 24) and {"vertebrae_C1", "vertebrae_L5"} < set(classes)
    with h5py.File(tmp_path / "results/shards/little/train-00000-of-00001.h5") as file:
        assert file["case/id"].asstr()[:].tolist() == ["a", "c"]
        for name in ("ct", "label", "case/affine"):
            np.testing.assert_array_equal(*file[name][:])
        assert file["label_status"][:].tolist() == [[3, 3], [3, 3]] and (file["label"][0] == 1).sum() > 60
        # The vertebrae fill voxels 16..23, 3..9, 6..21; 10 mm are 5, 4 and 4 voxels, as far as the CT reaches.
        middle = (AFFINE @ [(11 + 28) / 2, (0 + 13) / 2, (2 + 25) / 2, 1])[:3]
        np.testing.assert_allclose((file["case/affine"][0] @ [15.5, 15.5, 15.5, 1])[:3], middle)

    ingested = tmp_path / "results/ingest/c/case.json"
    before = ingested.stat().st_mtime_ns
    more = write_ct(tmp_path, "d", SPINE, 1) | {"split": "train", "label": ""}
    write_cohort(
        tmp_path, [rows[0], own, more], labels={"missing": "totalsegmentator-fast"}, simulators=SIMULATORS, **config
    )
    done = run(tmp_path, "shards")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len((tmp_path / "asked").read_text().splitlines()) == 2 and ingested.stat().st_mtime_ns == before
    table = {row["case"]: row["label"] for row in read_table(tmp_path / "results/segment/batch-00000.tsv")}
    assert table == {"a": "its own", "c": "made", "d": "made"}
