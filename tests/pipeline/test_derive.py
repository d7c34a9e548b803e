"""Stage derive and the hand-over of records: seeds that matter, status that is not forgotten."""

import json

import numpy as np
import pytest

from pipeline.deform import Strength
from pipeline.derive import derive
from pipeline.errors import UserError
from pipeline.files import array_sha256, write_json
from pipeline.nifti import load_nifti, save_nifti
from pipeline.records import read_record, run_case
from tests.phantoms import AFFINE, labelled_phantom

STRENGTH = Strength(40.0, 6.0, 3.0, 2.0, 0.03, 10.0, 5.0)


@pytest.fixture
def parent(tmp_path):
    """A labelled training case whose rod is cut in the source."""
    ct, label = labelled_phantom((20, 20, 20))
    folder = tmp_path / "label/a"
    save_nifti(folder / "ct.nii.gz", ct, AFFINE)
    save_nifti(folder / "label.nii.gz", label, AFFINE)
    record = {
        "case": "a", "stage": "label", "status": "ok", "split": "train", "subject_key": "k", "derived_from": "",
        "ct": "ct.nii.gz", "label": "label.nii.gz", "label_status": [3, 3, 2, 3, 0, 1], "spacing_mm": 3.0,
        "affine": AFFINE.tolist(), "ct_sha256": array_sha256(ct),
    }  # fmt: skip
    write_json(folder / "case.json", record)
    return folder / "case.json"


def made(parent, tmp_path, name, **changes):
    values = {"case": "a-d0001", "split": "train", "number": 1, "seed": 5, "strength": STRENGTH} | changes
    record = derive(parent, tmp_path / name, **values)
    return record, load_nifti(tmp_path / name / "ct.nii.gz")


def test_seed_and_number_both_choose_the_deformation(parent, tmp_path):
    _, first = made(parent, tmp_path, "first")
    _, again = made(parent, tmp_path, "again")
    np.testing.assert_array_equal(first, again)
    for name, change in (("number", {"number": 2}), ("seed", {"seed": 6})):
        _, other = made(parent, tmp_path, name, **change)
        assert (first != other).any(), name


def test_a_derived_case_keeps_its_patient_and_what_was_cut(parent, tmp_path):
    record, ct = made(parent, tmp_path, "out", split="family")
    assert (record["subject_key"], record["derived_from"], record["split"]) == ("k", "a", "family")
    assert record["ct_sha256"] == array_sha256(ct)
    assert record["label_status"][2] == 2 and record["label_status"][4:] == [0, 1]
    assert record["min_jacobian"] > 0.2 and record["max_displacement_mm"] > 0


def test_a_structure_that_leaves_the_cube_is_cut_not_absent(parent, tmp_path):
    far = Strength(40.0, 0.0, 500.0, 0.0, 0.0, 0.0, 0.0)
    record, _ = made(parent, tmp_path, "far", strength=far)
    assert record["label_status"][1] == 2


def test_a_scale_that_folds_the_volume_is_refused(parent, tmp_path):
    with pytest.raises(UserError, match="fold the volume"):
        for seed in range(40):
            made(parent, tmp_path, "fold", seed=seed, strength=Strength(60.0, 12.0, 8.0, 4.0, 0.6, 0.0, 0.0))


def test_a_quarantined_record_is_handed_on_untouched(tmp_path):
    bad = {"case": "x", "stage": "ingest", "status": "quarantined", "code": "E_ID", "reason": "r"}
    assert run_case("label", bad, tmp_path / "x", lambda folder: pytest.fail("worked on a bad case")) == bad
    assert json.loads((tmp_path / "x/case.json").read_text()) == bad
    with pytest.raises(UserError, match="stage ingest, quarantined; expected a usable one of: label, derive"):
        read_record(tmp_path / "x/case.json", "label", "derive")


def test_records_of_another_stage_or_kind_are_named(parent, tmp_path):
    with pytest.raises(UserError, match="record of stage label; expected a usable one of: fetch"):
        read_record(parent, "fetch")
    with pytest.raises(UserError, match="cannot be read"):
        read_record(tmp_path)
