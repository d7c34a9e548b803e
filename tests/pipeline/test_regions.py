"""Regions: whole voxels are chosen, nothing is moved, and a millimetre stays that millimetre."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.errors import CaseError, UserError
from pipeline.ingest import ingest, ingest_vertebrae
from pipeline.label import ABSENT, COMPLETE, CUT, label
from pipeline.nifti import load_nifti
from pipeline.regions import REGIONS, Labelled, cropped_affine, cut_out, find_region, hide, to_record
from pipeline.resample import resample_ct
from tests.cohorts import write_nifti
from tests.pipeline.records import fetched

SHAPE = (40, 30, 36)
AFFINE = np.array([[2.0, 0, 0, -33], [0, 3.0, 0, 11], [0, 0, 2.5, 400], [0, 0, 0, 1]])
NAMES = {2: "kidney_right", 3: "kidney_left", 5: "liver", 28: "vertebrae_L4", 29: "vertebrae_L3", 30: "vertebrae_L2"}
BOXES = {
    2: ((28, 33), (8, 13), (14, 18)),
    3: ((6, 11), (8, 13), (16, 20)),
    28: ((17, 24), (3, 8), (6, 10)),
    29: ((16, 22), (4, 9), (12, 16)),
    30: ((17, 23), (5, 10), (18, 22)),
}
"""First voxel and the one behind the last, per axis: by hand, nothing centred."""


def labelled(boxes=BOXES) -> Labelled:
    ids = np.zeros(SHAPE, np.uint8)
    for value, box in boxes.items():
        ids[tuple(slice(*side) for side in box)] = value
    return Labelled(ids, AFFINE, NAMES)


def ramp() -> np.ndarray:
    """HU = x + 2 y + z - 500 in mm of the world: what is off by half a voxel or has a wrong axis shows."""
    i, j, k = np.indices(SHAPE)
    return (-33 + 2 * i + 2 * (11 + 3 * j) + (400 + 2.5 * k) - 500).astype(np.float32)


EXPECTED = {
    "structures": (["kidney"], [[0, 40], [0, 30], [10, 24]]),
    "spine": ([], [[11, 29], [0, 14], [2, 26]]),
    "vertebra": (["vertebrae_L3"], [[16, 22], [4, 9], [12, 16]]),
}
"""Box by hand: 10 mm are 5, 4 (3.3) and 4 voxels."""


@pytest.mark.parametrize("name", EXPECTED)
def test_the_box_is_the_one_computed_by_hand_and_every_voxel_keeps_its_place(name):
    source = labelled()
    along, expected = EXPECTED[name]
    region = find_region(name, source, along, cube=32, spacing_mm=2.0)
    assert to_record(name, region)["box"] == expected
    part, affine = cut_out(ramp(), source, region)
    corner, far = [side[0] for side in expected], [side[1] - 1 for side in expected]
    for index in (corner, far):
        inside = np.subtract(index, corner)
        np.testing.assert_array_equal(affine @ [*inside, 1], AFFINE @ [*index, 1])
        if name != "vertebra":
            assert part[tuple(inside)] == ramp()[tuple(index)]
    middle = affine @ [*(np.array(part.shape) - 1) / 2, 1]
    np.testing.assert_allclose(region.target @ [15.5, 15.5, 15.5, 1], middle)
    np.testing.assert_array_equal(region.target[:3, :3], 2.0 * np.eye(3))


@pytest.mark.parametrize("name", EXPECTED)
def test_what_the_cube_holds_is_the_ct_at_its_own_millimetres(name):
    source = labelled()
    along, box = EXPECTED[name]
    region = find_region(name, source, along, cube=32, spacing_mm=1.0)
    part, affine = cut_out(ramp(), source, region)
    on_cube = resample_ct(part, affine, region.target, 32)
    z, y, x = np.indices(on_cube.shape)
    world = [region.target[axis, axis] * index + region.target[axis, 3] for axis, index in enumerate((x, y, z))]
    at = [(coordinate - AFFINE[axis, 3]) / AFFINE[axis, axis] for axis, coordinate in enumerate(world)]
    inside = np.all([(a >= low) & (a <= high - 1) for a, (low, high) in zip(at, box, strict=True)], axis=0)
    outside = np.any([(a <= low - 1) | (a >= high) for a, (low, high) in zip(at, box, strict=True)], axis=0)
    assert inside.sum() > 800
    np.testing.assert_allclose(on_cube[inside], (world[0] + 2 * world[1] + world[2] - 500)[inside], atol=0.51)
    assert (on_cube[outside] == -1024).all()


def test_a_vertebra_is_alone_in_air():
    source = labelled()
    region = find_region("vertebra", source, ["vertebrae_L3"], cube=16, spacing_mm=1.0)
    source.ids[17, 5, 13] = 5  # liver inside the box of the vertebra
    part, _ = cut_out(np.full(SHAPE, 300, np.int16), source, region)
    expected = np.full((6, 5, 4), 300)
    expected[1, 1, 1] = -1024
    np.testing.assert_array_equal(part, expected)
    assert part.dtype == np.int16


def test_the_affine_of_a_crop_is_exact_on_an_oblique_grid():
    affine = np.array([[1.7, -0.6, 0.1, 3], [0.5, 1.9, 0.7, -8], [-0.2, 0.4, 2.2, 91], [0, 0, 0, 1.0]])
    cropped = cropped_affine(affine, (slice(3, 9), slice(0, 4), slice(11, 12)))
    for index in ([0, 0, 0], [5, 3, 0], [2, 1, 0]):
        np.testing.assert_allclose(cropped @ [*index, 1], affine @ [*np.add(index, [3, 0, 11]), 1], rtol=0, atol=1e-12)
    assert affine[0, 3] == 3


@pytest.mark.parametrize(
    ("name", "along", "boxes", "code", "words"),
    [
        ("structures", ["kidney", "liver"], BOXES, "E_REGION_ABSENT", "does not hold liver"),
        ("structures", ["spleen"], BOXES, "E_REGION", "do not know spleen"),
        ("structures", ["kidney"], BOXES | {2: ((28, 33), (8, 13), (0, 4))}, "E_REGION_CUT", "ends within kidney"),
        ("structures", ["kidney"], BOXES | {2: ((28, 33), (8, 13), (33, 36))}, "E_REGION_CUT", "ends within kidney"),
        ("spine", [], {2: BOXES[2]}, "E_REGION_ABSENT", "does not hold a vertebra"),
        ("vertebra", ["vertebrae_L3"], {28: BOXES[28]}, "E_REGION_ABSENT", "does not hold vertebrae_L3"),
        ("vertebra", ["vertebrae_L3"], {29: ((16, 22), (0, 5), (12, 16))}, "E_REGION_CUT", "edge of the CT cuts"),
        ("vertebra", ["vertebrae_L3"], {29: ((16, 22), (4, 30), (12, 16))}, "E_REGION_CUT", "edge of the CT cuts"),
        ("vertebra", ["vertebrae_L3"], {29: ((5, 35), (4, 9), (12, 16))}, "E_REGION", "measures 58 mm"),
    ],
)
def test_cases_without_the_region_are_set_aside(name, along, boxes, code, words):
    with pytest.raises(CaseError, match=words) as caught:
        find_region(name, labelled(boxes), along, cube=32, spacing_mm=1.0)
    assert caught.value.code == code and len(caught.value.reason) > 20


def test_wrong_use_is_said():
    with pytest.raises(UserError, match="'body' is not known; expected one of: cube, structures, spine, vertebra"):
        find_region("body", labelled(), [], cube=32, spacing_mm=1.0)
    for along in ([], ["liver"], ["vertebrae_L3", "vertebrae_L2"]):
        with pytest.raises(UserError, match="needs one vertebra, for example vertebrae_L3"):
            REGIONS["vertebra"](labelled(), along, cube=32, spacing_mm=1.0)


def test_structures_that_a_box_cuts_are_told_and_those_that_a_mask_hides_are_absent():
    source = labelled()
    structures = (source.ids % 25).astype(np.uint8)  # 2, 3, and 3, 4, 5 for the vertebrae
    before = structures.copy()
    record = {"name": "x", "box": [[0, 40], [0, 30], [10, 17]], "keep": None}
    assert hide(structures, source.ids, record) == {2, 3, 5}
    np.testing.assert_array_equal(structures[:, :, 10:17], before[:, :, 10:17])
    assert not structures[:, :, :10].any() and not structures[:, :, 17:].any()
    masked = before.copy()
    assert hide(masked, source.ids, record | {"keep": [29]}) == set()
    assert set(np.unique(masked)) == {0, 4} and (masked == 4).sum() == 6 * 5 * 4
    side = before.copy()
    assert hide(side, source.ids, {"name": "x", "box": [[8, 40], [0, 30], [0, 36]], "keep": None}) == {3}


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR"])
def test_through_ingest_and_label(tmp_path, orientation):
    """A file of any axes: the vertebra alone on 1 mm, where it was; kidneys and spine by the structures they follow."""
    source = labelled()
    ct = np.random.default_rng(0).normal(-1000, 10, SHAPE)
    ct[4:36, 2:28] = np.random.default_rng(1).normal(-80, 30, (32, 26, 36))
    ct[source.ids > 0] = 200 + source.ids[source.ids > 0]
    change = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(orientation))
    for name, data in (("ct", np.rint(ct).astype(np.int16)), ("label", source.ids)):
        turned = nib.Nifti1Image(data, AFFINE).as_reoriented(change)
        write_nifti(tmp_path / f"{name}.nii.gz", np.asarray(turned.dataobj).T, turned.affine)
    record = fetched(tmp_path, tmp_path / "ct.nii.gz", tmp_path / "label.nii.gz")

    def run(region, along, cube, spacing_mm):
        done = ingest(record, tmp_path / "i", cube=cube, spacing_mm=spacing_mm, region=region, along=along)
        assert done["status"] == "ok", done
        done = label(tmp_path / "i/case.json", tmp_path / "l", structures=["kidney", "vertebrae"])
        assert done["status"] == "ok", done
        ids = load_nifti(tmp_path / "l/label.nii.gz")
        return load_nifti(tmp_path / "i/ct.nii.gz"), ids, np.array(done["affine"]), done["label_status"]

    hu, ids, affine, status = run("vertebra", ("vertebrae_L3",), 32, 1.0)
    assert status == [COMPLETE, ABSENT, COMPLETE]  # of the world that the picture shows
    middle = (affine @ np.append(np.argwhere(ids == 2).mean(axis=0)[::-1], 1))[:3]
    np.testing.assert_allclose(middle, AFFINE[:3, :3] @ [18.5, 6, 13.5] + AFFINE[:3, 3], atol=0.3)
    assert hu[ids == 2].min() > -1024 and (hu[ids == 0] == -1024).mean() > 0.8 and hu.max() == 229

    hu, ids, affine, status = run("structures", ("kidney",), 32, 3.0)
    assert status == [COMPLETE, COMPLETE, CUT]
    rows = np.flatnonzero((hu > -1000).any(axis=(1, 2))) * 3.0 + affine[2, 3]
    assert rows[0] >= 425 - 3 and rows[-1] <= 457.5 + 3  # planes 10 to 23

    _, ids, affine, status = run("spine", (), 32, 3.0)
    assert status == [COMPLETE, CUT, COMPLETE]


@pytest.mark.parametrize("region", REGIONS)
def test_labels_with_an_unnamed_id_are_refused_before_they_are_followed(tmp_path, region):
    source = labelled()
    source.ids[0, 0, 0] = 250
    ct = np.random.default_rng(0).normal(-80, 60, SHAPE)
    write_nifti(tmp_path / "ct.nii.gz", np.rint(ct).astype(np.int16).T, AFFINE)
    write_nifti(tmp_path / "label.nii.gz", source.ids.T, AFFINE)
    record = fetched(tmp_path, tmp_path / "ct.nii.gz", tmp_path / "label.nii.gz")
    done = ingest(record, tmp_path / "i", cube=16, spacing_mm=4.0, region=region, along=("vertebrae_L3",))
    assert (done["status"], done["code"]) == ("quarantined", "E_LABEL_VALUES")


def test_a_case_without_labels_has_no_region_but_the_cube(tmp_path):
    ct = np.random.default_rng(0).normal(-80, 60, SHAPE)
    write_nifti(tmp_path / "ct.nii.gz", np.rint(ct).astype(np.int16).T, AFFINE)
    record = fetched(tmp_path, tmp_path / "ct.nii.gz")
    done = ingest(record, tmp_path / "i", cube=16, spacing_mm=4.0, region="spine")
    assert (done["status"], done["code"]) == ("quarantined", "E_REGION") and "no labels" in done["reason"]
    assert ingest(record, tmp_path / "i", cube=16, spacing_mm=4.0)["status"] == "ok"


def vertebrae_of(folder, changes=()):
    """a-L2, a-L3, a-T9 of a CT, by the ingest stage."""
    ct = np.random.default_rng(0).normal(-80, 60, SHAPE)
    write_nifti(folder / "ct.nii.gz", np.rint(ct).astype(np.int16).T, AFFINE)
    write_nifti(folder / "label.nii.gz", labelled().ids.T, AFFINE)
    record = fetched(folder, folder / "ct.nii.gz", folder / "label.nii.gz", **dict(changes))
    return ingest_vertebrae(record, folder / "i/a", ["L2", "L3", "T9"], cube=32, spacing_mm=1.0)


def test_each_vertebra_gets_a_record_of_its_own_and_the_ct_is_read_once(tmp_path, monkeypatch):
    import pipeline.ingest

    reads = []
    read_volume = pipeline.ingest.read_volume
    monkeypatch.setattr(pipeline.ingest, "read_volume", lambda *a, **b: reads.append(a) or read_volume(*a, **b))
    records = vertebrae_of(tmp_path, {"patient": "x"}.items())
    assert len(reads) == 1
    assert [(record["case"], record["status"]) for record in records] == [
        ("a-L2", "ok"),
        ("a-L3", "ok"),
        ("a-T9", "quarantined"),
    ]
    assert records[2]["code"] == "E_REGION_ABSENT" and {record["scan"] for record in records} == {"a"}
    for record in records:
        assert json.loads((tmp_path / f"i/{record['case']}/case.json").read_text()) == record
    assert not (tmp_path / "i/a").exists() and not (tmp_path / "i/a-T9/ct.nii.gz").exists()
    alone = ingest(
        tmp_path / "fetch/case.json",
        tmp_path / "one",
        cube=32,
        spacing_mm=1.0,
        region="vertebra",
        along=("vertebrae_L3",),
    )
    assert {key: records[1][key] for key in ("affine", "ct_sha256", "region")} == {
        key: alone[key] for key in ("affine", "ct_sha256", "region")
    }
    assert len({records[0]["ct_sha256"], records[1]["ct_sha256"]}) == 2


def test_the_label_map_of_all_vertebrae_is_read_once_and_gives_the_same_labels(tmp_path, monkeypatch):
    import pipeline.label

    reads = []
    read_label = pipeline.label.read_label
    monkeypatch.setattr(
        pipeline.label, "read_label", lambda path, **options: reads.append(path) or read_label(path, **options)
    )
    records = [tmp_path / f"i/{record['case']}/case.json" for record in vertebrae_of(tmp_path)]
    reads.clear()
    options = ["--structures", "kidney", "vertebrae", "--out"]
    assert main(["label", *map(str, records), "--vertebrae", *options, str(tmp_path / "l/a")]) == 0
    assert len(reads) == 1
    for path, status in zip(records, ("ok", "ok", "quarantined"), strict=True):
        name = path.parent.name
        together = json.loads((tmp_path / f"l/{name}/case.json").read_text())
        alone = label(path, tmp_path / f"alone/{name}", structures=["kidney", "vertebrae"])
        assert together == alone and together["status"] == status
        if status == "ok":
            one, other = (load_nifti(tmp_path / f"{place}/{name}/label.nii.gz") for place in ("l", "alone"))
            np.testing.assert_array_equal(one, other)
            assert set(np.unique(one)) == {0, 2}
    assert not (tmp_path / "l/a").exists()


def test_records_that_are_not_the_vertebrae_of_one_ct_are_refused(tmp_path, capsys):
    whole = str(fetched(tmp_path, tmp_path / "ct.nii.gz", stage="ingest"))
    other = str(fetched(tmp_path / "b", tmp_path / "ct.nii.gz", stage="ingest", scan="b"))
    third = str(fetched(tmp_path / "c", tmp_path / "ct.nii.gz", stage="ingest", scan="c"))
    for records, words in (
        ([whole, other], "label was given 2 records; expected one, or --vertebrae"),
        ([whole, other, "--vertebrae"], "the records are of a whole CT, b; expected vertebrae of one CT"),
        ([other, third, "--vertebrae"], "the records are of b, c; expected vertebrae of one CT"),
    ):
        assert main(["label", *records, "--structures", "kidney", "--out", str(tmp_path / "l")]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "l").exists()


def test_a_ct_set_aside_before_is_handed_on_for_each_vertebra(tmp_path):
    changes = {"status": "quarantined", "code": "E_ID", "reason": "a bad id"}
    records = vertebrae_of(tmp_path, changes.items())
    assert [(record["case"], record["stage"], record["code"]) for record in records] == [
        (f"a-{name}", "fetch", "E_ID") for name in ("L2", "L3", "T9")
    ]


@pytest.mark.parametrize(
    "options",
    [["--region", "vertebra"], ["--region", "structures"], ["--along", "L2"], ["--region", "spine", "--along", "L2"]],
)
def test_a_region_without_its_names_or_names_without_a_region_are_refused(tmp_path, capsys, options):
    record = fetched(tmp_path, tmp_path / "ct.nii.gz")
    assert main(["ingest", str(record), *options, "--out", str(tmp_path / "i")]) == 2
    assert "expected names for structures and vertebra, none for cube and spine" in capsys.readouterr().err
