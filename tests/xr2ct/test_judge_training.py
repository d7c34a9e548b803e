"""Before and around nnU-Net: which cases teach, what is written for it, what it may see of the environment."""

import csv
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.phantoms import STRUCTURES, phantom_case, write_phantom_shard
from xr2ct.errors import UserError
from xr2ct.judge import environment as surroundings
from xr2ct.judge.dataset import NAME, choose_cases, write_dataset
from xr2ct.judge.environment import nnunet_environment, require_nnunet
from xr2ct.judge.groups import GROUPS, classes_of
from xr2ct.judge.totalsegmentator import merge
from xr2ct.judge.train import train_judge
from xr2ct.shards import IGNORE, NOT_ANNOTATED, open_shards

TABLES = Path(__file__).parents[2] / "resources" / "labels"


def shards_of(tmp_path, *cases):
    return open_shards([write_phantom_shard(tmp_path / "s.h5", list(cases))])


def status(*values):
    return np.array(values, np.uint8)


def test_cases_that_are_not_annotated_for_everything_are_left_out_by_name(tmp_path):
    unseen = phantom_case("p1", label_status=status(3, 3, NOT_ANNOTATED, NOT_ANNOTATED))
    blank = phantom_case("p2", label=np.zeros((20, 24, 28), np.uint8))
    choice = choose_cases(shards_of(tmp_path, phantom_case("p0"), unseen, blank))
    assert list(choice.cases) == ["p0"] and choice.structures == STRUCTURES and not choice.ignore
    assert choice.left_out == {"p1": "not annotated: rod, plate", "p2": "no labelled voxel"}


def test_nothing_to_learn_from_is_said(tmp_path):
    unseen = phantom_case("p1", label_status=status(3, NOT_ANNOTATED, 3, 3))
    with pytest.raises(UserError, match="none of the 1 cases can teach a judge .the first: not annotated: ball"):
        choose_cases(shards_of(tmp_path, unseen))
    (shard,) = shards_of(tmp_path, phantom_case("p0"))
    with pytest.raises(UserError, match="case 'p0' occurs twice"):
        choose_cases([shard, shard])
    (other,) = open_shards([shard.path])
    other.structures = ("background", "ball")
    with pytest.raises(UserError, match="structures background ball; expected background ball rod plate as in"):
        choose_cases([shard, other])
    other.structures = ("background",)
    with pytest.raises(UserError, match="names no structure"):
        choose_cases([other])


@pytest.mark.parametrize("ignored", [False, True])
def test_the_data_set_holds_the_shards_voxels_in_their_place(ignored, tmp_path):
    label = phantom_case("p1").label.copy()
    if ignored:
        label[0, 1, 2] = IGNORE
    given = [phantom_case("p0"), phantom_case("p1", label=label, ct_hu=phantom_case("p1", shift=(0.1, 0, 0)).ct_hu)]
    write_dataset(choose_cases(shards_of(tmp_path, *given)), tmp_path / "raw")
    description = json.loads((tmp_path / "raw" / NAME / "dataset.json").read_text())
    names = dict(zip(STRUCTURES, range(4), strict=True))
    assert description["labels"] == (names | {"ignore": 4} if ignored else names)
    assert description["channel_names"] == {"0": "CT"} and description["numTraining"] == 2
    for case, entry in zip(given, description["dataset"].values(), strict=True):
        image, mask = (nib.load(tmp_path / "raw" / NAME / path) for path in (*entry["images"], entry["label"]))
        np.testing.assert_array_equal(np.asarray(image.dataobj).T, case.ct_hu)
        np.testing.assert_array_equal(np.asarray(mask.dataobj).T, np.where(case.label == IGNORE, 4, case.label))
        np.testing.assert_allclose(image.affine, case.affine)


def test_the_environment_is_as_before_whatever_happens_inside(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", "mine")
    monkeypatch.setenv("nnUNet_extTrainer", "elsewhere")
    monkeypatch.delenv("nnUNet_compile", raising=False)
    before = dict(os.environ)
    with pytest.raises(RuntimeError), nnunet_environment(tmp_path / "work", processes=3):
        seen = {name: value for name, value in os.environ.items() if name.startswith("nnUNet_")}
        os.environ.update(dict.fromkeys(seen, "changed by the package"))
        print("chatter")
        raise RuntimeError
    folders = {f"nnUNet_{name}": str(tmp_path / "work" / name) for name in ("raw", "preprocessed", "results")}
    assert folders.items() <= seen.items() and seen["nnUNet_compile"] == "f" and "nnUNet_extTrainer" not in seen
    assert (seen["nnUNet_def_n_proc"], seen["nnUNet_n_proc_DA"]) == ("3", "0")
    assert dict(os.environ) == before
    assert capsys.readouterr().out == "" and (tmp_path / "work" / "nnunet.log").read_text() == "chatter\n"


@pytest.mark.parametrize(
    ("found", "message"),
    [(None, "is not installed"), ("2.5.1", "nnunetv2 is 2.5.1; expected 2.8 or newer"), ("1.7", "is 1.7")],
)
def test_a_missing_or_old_nnunet_is_said_with_the_line_to_run(found, message, monkeypatch):
    monkeypatch.setattr(surroundings, "find_spec", lambda _: found)
    monkeypatch.setattr(surroundings, "version", lambda _: found)
    with pytest.raises(UserError, match=message) as error:
        require_nnunet()
    assert "pip install 'xr2ct[nnunet]' -c constraints.txt" in str(error.value)
    for new in ("2.8", "2.10.3", "3.0"):
        monkeypatch.setattr(surroundings, "find_spec", lambda _: True)
        monkeypatch.setattr(surroundings, "version", lambda _, new=new: new)
        assert require_nnunet() == new


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "totalsegmentator"}, "comes trained: there is nothing to train. Run: xr2ct judge --judge totalseg"),
        ({"kind": "nnunett"}, "'nnunett' is not known; expected one of: nnunet, totalsegmentator"),
        ({"size": "tiny"}, "size of judge 'tiny' is not known; expected one of: small, medium, stock"),
        ({"iterations": 0}, "iterations is 0, expected 1 or more"),
        ({"seed": -1}, "seed is -1, expected 0 or more"),
        ({"threads": 0}, "threads is 0, expected 1 or more"),
    ],
)
def test_wrong_use_is_said_before_anything_is_written(change, message, tmp_path):
    arguments = {"kind": "nnunet", "size": "small", "shards": [tmp_path / "s.h5"], "out": tmp_path / "out"}
    with pytest.raises(UserError, match=message):
        train_judge(**arguments | change)
    assert not (tmp_path / "out").exists()


def read_table(name):
    with (TABLES / f"{name}.tsv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_structures_are_made_of_the_same_classes_as_in_the_pipeline():
    for row in read_table("structures"):
        assert sorted(classes_of(row["structure"])) == sorted(row["members"].split()), row["structure"]
    assert set(GROUPS) <= {row["structure"] for row in read_table("structures")}


def test_classes_are_merged_by_name_and_half_a_structure_is_none():
    classes = {int(row["id"]): row["name"] for row in read_table("totalsegmentator_v2")}
    wanted = ["background", "mandible", "kidney", "sacrum", "liver", "vertebrae"]
    known, lookup = merge(classes, wanted)
    assert known == ("background", "kidney", "sacrum", "liver", "vertebrae")  # task total has no mandible
    ids = {name: number for number, name in classes.items()}
    assert [lookup[ids[name]] for name in ("kidney_left", "kidney_right", "vertebrae_S1", "sacrum", "liver")] == [
        *(1, 1, 2, 2, 3)
    ]
    assert lookup[ids["vertebrae_T7"]] == 4 and lookup[ids["spleen"]] == lookup[0] == 0
    del classes[ids["vertebrae_S1"]]
    assert merge(classes, wanted)[0] == ("background", "kidney", "liver", "vertebrae")
