"""What a judge finds is scored like any other label map, whatever its order of structures; nothing is dropped."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.phantoms import STRUCTURES, phantom_case, write_phantom_shard
from tests.xr2ct.runs import brighter, write_nifti, write_run
from xr2ct.__main__ import main
from xr2ct.errors import UserError
from xr2ct.evaluate import COLUMNS
from xr2ct.judge import judging, registry
from xr2ct.judge.judging import judge
from xr2ct.judge.record import JudgeRecord, read_record, write_record
from xr2ct.judge.registry import open_judge
from xr2ct.judge.totalsegmentator import networks_folder, require_networks
from xr2ct.shards import IGNORE, NOT_ANNOTATED, Shard

CPU = pytest.importorskip("torch").device("cpu")
HU = {"ball": 300, "rod": 800, "plate": -600}
METRICS = ("dice", "hd95", "chamfer")


class ByBrightness:
    """Knows the phantom's structures by their HU, in another order than the shard, and remembers what it was shown."""

    kind = "nnunet"

    def __init__(self, structures=("background", "plate", "rod", "ball"), learned=()):
        self.structures, self.learned, self.seen = structures, frozenset(learned), []

    def segment(self, ct_hu, affine):
        self.seen.append(ct_hu)
        label = np.zeros(ct_hu.shape, np.uint8)
        for value, name in list(enumerate(self.structures))[1:]:
            label[ct_hu == HU[name]] = value
        return label


@pytest.fixture
def shard(tmp_path):
    cases = [phantom_case("p0"), phantom_case("p1", shift=(0.05, 0.0, 0.02))]
    return Shard(write_phantom_shard(tmp_path / "shard.h5", cases, split="test"))


@pytest.fixture
def rows(shard, tmp_path, monkeypatch):
    """Rows of the CSV by (case, metric, structure)."""

    def run(segmenter, index=None, shards=None):
        monkeypatch.setattr(judging, "open_judge", lambda *_: segmenter)
        out = tmp_path / "judged.csv"
        given = {"shards": shards or [Path(shard.path)], "reconstructions": index}
        judge(judge="fake", **given, out=out, device="cpu", threads=1)
        with out.open(newline="") as file:
            reader = csv.DictReader(file)
            found = list(reader)
        assert tuple(reader.fieldnames) == COLUMNS
        assert all(row["reason"] for row in found if math.isnan(float(row["value"])))
        by_key = {(row["case"], row["metric"], row["structure"]): row for row in found}
        assert len(by_key) == len(found)
        return by_key

    return run


def value(rows, *key):
    return float(rows[key]["value"])


def test_the_true_cts_are_the_ceiling(rows):
    found = rows(ByBrightness())
    assert len(found) == 2 * 3 * len(METRICS)
    for name in STRUCTURES[1:]:
        assert [value(found, "p1", f"nnunet-{metric}", name) for metric in METRICS] == [1, 0, 0]
    row = found["p1", "nnunet-hd95", "rod"]
    assert (row["model"], row["simulator"], row["seed"]) == ("true CT", "", "")
    assert (row["subject"], row["split"], row["unit"], row["reason"]) == ("key-p1", "test", "mm", "")


def test_a_reconstruction_is_judged_by_its_ct_and_its_label_is_ignored(shard, rows, tmp_path):
    def moved(case):
        """The rod one voxel (3 mm) further along x, labels of nothing."""
        ct, rod = case.ct_hu.copy(), case.label == 2
        ct[rod] = 20
        ct[np.roll(rod, 1, axis=2)] = HU["rod"]
        return ct, None

    found = rows(ByBrightness(), write_run(tmp_path / "moved-seed3", shard, moved, seed=3))
    rod = shard.case(0).label == 2
    overlap = (rod & np.roll(rod, 1, axis=2)).sum() / rod.sum()
    assert value(found, "p0", "nnunet-dice", "rod") == pytest.approx(overlap) and 0.5 < overlap < 0.9
    assert value(found, "p0", "nnunet-hd95", "rod") == 3
    assert value(found, "p0", "nnunet-dice", "plate") == 1
    row = found["p0", "nnunet-dice", "rod"]
    assert (row["model"], row["simulator"], row["seed"]) == ("moved", "parallel", "3")


def test_what_the_judge_does_not_find_has_dice_0_and_no_distance(shard, rows, tmp_path):
    found = rows(ByBrightness(), write_run(tmp_path / "bright", shard, brighter))
    assert value(found, "p0", "nnunet-dice", "ball") == 0
    assert math.isnan(value(found, "p0", "nnunet-chamfer", "ball"))
    assert found["p0", "nnunet-chamfer", "ball"]["reason"] == "the judge finds no voxel of the structure"


def test_the_judge_is_shown_whole_hu_in_the_range_of_shards(shard, rows, tmp_path):
    segmenter = ByBrightness()
    index = write_run(tmp_path / "float", shard)
    for name in ("p0", "p1"):
        case = shard.case(int(name[1]))
        strange = case.ct_hu + np.float32(0.4)
        strange[0, 0, :3] = (-5000, 70000, 12.6)
        write_nifti(tmp_path / "float" / name / "ct.nii.gz", strange, case.affine)
    found = rows(segmenter, index)
    assert segmenter.seen[0].dtype == np.int16 and segmenter.seen[0][0, 0, :3].tolist() == [-1024, 3071, 13]
    assert value(found, "p0", "nnunet-dice", "ball") == 1


def test_an_unusable_reconstruction_is_rows_with_a_reason(shard, rows, tmp_path):
    index = write_run(tmp_path / "a", shard)
    content = json.loads(index.read_text())
    broken = shard.case(0).ct_hu.astype(np.float32)
    broken[1, 2, 3] = np.nan
    write_nifti(tmp_path / "a" / "p0" / "ct.nii.gz", broken, shard.case(0).affine)
    index.write_text(json.dumps(content | {"cases": content["cases"][:1]}))
    found = rows(ByBrightness(), index)
    assert len(found) == 2 * 3 * len(METRICS)
    assert found["p0", "nnunet-dice", "ball"]["reason"] == "reconstruction holds values that are not finite"
    assert found["p1", "nnunet-hd95", "rod"]["reason"] == "case was not reconstructed"
    mirrored = shard.case(0).affine @ np.diag([-1.0, 1, 1, 1])
    write_nifti(tmp_path / "a" / "p0" / "ct.nii.gz", shard.case(0).ct_hu, mirrored)
    assert "corners of the grid lie up to" in rows(ByBrightness(), index)["p0", "nnunet-dice", "ball"]["reason"]


def test_structures_the_judge_does_not_know_and_cases_it_learned_from_say_so(rows):
    found = rows(ByBrightness(("background", "rod"), learned=["p1"]))
    assert found["p0", "nnunet-dice", "ball"]["reason"] == "the judge does not know this structure"
    assert math.isnan(value(found, "p0", "nnunet-dice", "ball")) and value(found, "p1", "nnunet-dice", "rod") == 1
    assert found["p1", "nnunet-dice", "rod"]["reason"] == "the judge was trained on this case"
    assert found["p0", "nnunet-dice", "rod"]["reason"] == ""


def test_voxels_nobody_may_judge_and_structures_nobody_looked_for_do_not_count(rows, tmp_path):
    case = phantom_case("p")
    label, status = case.label.copy(), case.label_status.copy()
    label[label == 3] = IGNORE  # the judge still finds the plate there
    label[:, :, -1] = IGNORE
    status[2] = NOT_ANNOTATED
    case = phantom_case("p", label=label, label_status=status)
    found = rows(ByBrightness(), shards=[write_phantom_shard(tmp_path / "s.h5", [case], split="test")])
    assert {structure for _, _, structure in found} == {"ball", "plate"}
    assert found["p", "nnunet-dice", "plate"]["reason"] == "structure has no voxel in the reference"
    assert math.isnan(value(found, "p", "nnunet-dice", "plate")) and value(found, "p", "nnunet-dice", "ball") == 1


def test_wrong_use_is_said(shard, rows, tmp_path):
    index, path = write_run(tmp_path / "a", shard), Path(shard.path)
    with pytest.raises(UserError, match="case 'p0' occurs twice in the shards"):
        rows(ByBrightness(), shards=[path, path])
    other = write_phantom_shard(tmp_path / "other.h5", [phantom_case("p0")], split="test")
    with pytest.raises(UserError, match="case 'p1' is in none of the shards"):
        rows(ByBrightness(), index, shards=[other])
    assert not (tmp_path / "judged.csv").exists()


RECORD = JudgeRecord(
    kind="nnunet",
    size="small",
    package="nnunetv2 2.8",
    structures=("background", "ball"),
    cases=("a", "b"),
    left_out={"c": "not annotated: ball"},
    shards=("0" * 64,),
    seed=1,
    iterations=5,
    result_version=1,
    seconds=3.5,
)


def test_the_record_of_a_judge_reads_back(tmp_path):
    write_record(tmp_path, RECORD)
    assert read_record(tmp_path) == RECORD
    assert RECORD.same_training(JudgeRecord(**vars(RECORD) | {"seconds": 9.0}))
    assert not RECORD.same_training(JudgeRecord(**vars(RECORD) | {"seed": 2}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("{", "is not a whole xr2ct/judge"),
        ("[1]", "is not a whole xr2ct/judge"),
        ('{"schema": "x", "schema_version": "1.0.0"}', "holds x 1.0.0, expected xr2ct/judge"),
        ('{"schema": "xr2ct/judge", "schema_version": "2.0.0"}', "holds xr2ct/judge 2.0.0"),
        ('{"schema": "xr2ct/judge", "schema_version": "1.0.0"}', "is not a whole xr2ct/judge"),
    ],
)
def test_a_foreign_or_unfinished_judge_is_refused(text, message, tmp_path):
    if text:
        (tmp_path / "judge.json").write_text(text)
    with pytest.raises(UserError, match=message):
        open_judge(str(tmp_path), STRUCTURES, CPU)


def test_an_unknown_judge_gets_the_ready_made_ones(tmp_path):
    with pytest.raises(UserError, match="'totalsegmentor' is no folder; expected .*totalsegmentator-fast"):
        open_judge("totalsegmentor", STRUCTURES, CPU)
    write_record(tmp_path, JudgeRecord(**vars(RECORD) | {"kind": "nunet"}))
    with pytest.raises(UserError, match="kind 'nunet' is not known.*Did you mean 'nnunet'"):
        open_judge(str(tmp_path), STRUCTURES, CPU)


def test_a_judge_that_knows_nothing_of_the_shards_is_refused(monkeypatch):
    monkeypatch.setattr(registry, "READY_MADE", {"eyes": lambda *_: ByBrightness()})
    assert open_judge("eyes", ("background", "liver", "rod"), CPU).structures[2] == "rod"
    with pytest.raises(UserError, match="judge eyes knows plate, rod, ball; expected at least one of liver, spleen"):
        open_judge("eyes", ("background", "liver", "spleen"), CPU)


@pytest.mark.parametrize("name", ["totalsegmentator", "totalsegmentator-fast"])
def test_totalsegmentator_is_asked_for_before_it_fails(name, tmp_path, monkeypatch):
    monkeypatch.delenv("TOTALSEG_WEIGHTS_PATH", raising=False)
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path))
    monkeypatch.setattr("xr2ct.judge.totalsegmentator.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"needs the package TotalSegmentator.*pip install 'xr2ct\[totalsegmentator\]'"):
        open_judge(name, STRUCTURES, CPU)
    monkeypatch.setattr("xr2ct.judge.totalsegmentator.find_spec", lambda _: True)
    task = "total_fast" if name.endswith("fast") else "total "
    with pytest.raises(UserError, match=f"are not in {tmp_path}/nnunet/results.*totalseg_download_weights -t {task}"):
        open_judge(name, STRUCTURES, CPU)
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "w"))
    (tmp_path / "w" / "Dataset297_x").mkdir(parents=True)
    assert networks_folder() == tmp_path / "w"
    require_networks(fast=True)
    with pytest.raises(UserError, match=r"\[291, 292, 293, 294, 295\]"):
        require_networks(fast=False)


def test_a_missing_judge_is_one_line_by_command(shard, tmp_path, capsys):
    arguments = ["--shards", shard.path, "--out", str(tmp_path / "o.csv"), "--device", "cpu", "--threads", "1"]
    assert main(["judge", "--judge", str(tmp_path / "no"), *arguments]) == 2
    assert f"ERROR: judge '{tmp_path / 'no'}' is no folder" in capsys.readouterr().err
