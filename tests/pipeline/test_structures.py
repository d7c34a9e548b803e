"""Structures by name: the tables are complete, an id is looked up through its name, nothing half annotated passes."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.structures import (
    TABLES,
    annotated_structures,
    check_structures,
    load_scheme,
    load_structures,
    structure_lookup,
    wanted_classes,
)

V2 = "totalsegmentator_v2"
SPIDER = {
    "kidney": {2, 3},
    "hip": {77, 78},
    "sacrum": {25, 26},
    "femur": {75, 76},
    "vertebrae": set(range(27, 51)),
    "autochthon": {86, 87},
    "gluteus": set(range(80, 86)),
    "iliopsoas": {88, 89},
}
"""Ids as TotalSegmentator's own table gives them."""
CHEST = {
    "lung_left": {10, 11},
    "lung_right": {12, 13, 14},
    "heart": {51, 61},
    "aorta": {52},
    "ribs": set(range(92, 116)),
    "costal_cartilages": {117},
    "sternum": {116},
    "clavicle": {73, 74},
    "scapula": {71, 72},
    "liver": {5},
    "thyroid": {17},
}


def test_the_scheme_holds_117_classes_under_their_published_ids():
    scheme = load_scheme(V2)
    assert list(scheme) == list(range(1, 118)) and len(set(scheme.values())) == 117
    known = {1: "spleen", 2: "kidney_right", 3: "kidney_left", 7: "pancreas", 26: "vertebrae_S1", 27: "vertebrae_L5"}
    known |= {
        50: "vertebrae_C1",
        51: "heart",
        77: "hip_left",
        90: "brain",
        103: "rib_left_12",
        117: "costal_cartilages",
    }
    assert {number: scheme[number] for number in known} == known


SINGLE = [f"vertebra_{part}{number}" for part, last in (("C", 7), ("T", 13), ("L", 6)) for number in range(1, last + 1)]
NOT_IN_V2 = {"mandible", "maxilla", "vertebra_T13", "vertebra_L6"}


def test_every_member_is_a_class_of_some_scheme_and_version_2_has_all_but_four_structures():
    structures = load_structures()
    schemes = [path.stem for path in TABLES.glob("*.tsv") if path.stem != "structures"]
    assert len(schemes) == 6
    names = {name for scheme in schemes for name in load_scheme(scheme).values()}
    members = {member for group in structures.values() for member in group}
    assert members - names == {"maxilla"}  # no public network or data set of ours names it: the user's own labels do
    assert all(structures.values()) and set(SINGLE) <= set(structures)
    known = dict(zip(structures, annotated_structures(load_scheme(V2), list(structures)), strict=True))
    assert {name for name, annotated in known.items() if not annotated} == NOT_IN_V2
    assert len(structures) <= 250


@pytest.mark.parametrize(
    ("scheme", "annotated"),
    [
        ("totalsegmentator_craniofacial", {"mandible", "skull"}),
        ("verse", {"vertebrae", "lumbar_spine", *SINGLE}),
        ("ctspine1k", {"vertebrae", "lumbar_spine", *SINGLE} - {"vertebra_T13"}),
        ("ctpelvic1k", {"sacrum", "hip", "lumbar_spine"}),
        ("totalsegmentator_v1", set(SPIDER) | set(SINGLE) - NOT_IN_V2 | {"ribs", "lumbar_spine", "lung_left"}),
    ],
)
def test_what_a_scheme_lacks_is_not_annotated(scheme, annotated):
    structures = sorted(load_structures())
    names = load_scheme(scheme)
    known = [name for name, flag in zip(structures, annotated_structures(names, structures), strict=True) if flag]
    if scheme == "totalsegmentator_v1":
        assert annotated <= set(known) and not {"heart", "costal_cartilages", "skull", "sternum"} & set(known)
    else:
        assert set(known) == annotated
    for name in sorted(set(structures) - set(known)):
        assert not structure_lookup(names, [name]).any()


def test_ids_of_version_1_and_of_the_skull_are_the_published_ones():
    v1 = load_scheme("totalsegmentator_v1")
    assert list(v1) == list(range(1, 105)) and len(set(v1.values())) == 104
    published = {18: "vertebrae_L5", 41: "vertebrae_C1", 88: "femur_left", 90: "hip_left", 92: "sacrum", 93: "face"}
    assert {number: v1[number] for number in published} == published
    assert np.flatnonzero(structure_lookup(v1, ["sacrum"])).tolist() == [92]
    assert np.flatnonzero(structure_lookup(v1, ["gluteus"])).tolist() == list(range(94, 100))
    assert np.flatnonzero(structure_lookup(load_scheme("totalsegmentator_craniofacial"), ["mandible"])).tolist() == [1]


def test_single_vertebrae_ribs_with_cartilage_and_a_lumbar_spine_by_name():
    lookup = structure_lookup(load_scheme(V2), ["vertebra_L5", "vertebra_C1", "ribs_and_cartilages", "vertebra_T12"])
    assert [np.flatnonzero(lookup == value).tolist() for value in range(1, 5)] == [
        [27],
        [50],
        [*range(92, 116), 117],
        [32],
    ]
    assert np.flatnonzero(structure_lookup(load_scheme(V2), ["lumbar_spine"])).tolist() == list(range(27, 32))
    assert np.flatnonzero(structure_lookup(load_scheme("ctpelvic1k"), ["lumbar_spine"])).tolist() == [4]
    assert np.flatnonzero(structure_lookup(load_scheme("verse"), ["lumbar_spine"])).tolist() == list(range(20, 26))


@pytest.mark.parametrize(
    ("structures", "words"),
    [
        (["vertebrae", "liver", "vertebra_T13"], "vertebrae and vertebra_T13 both hold vertebrae_T13"),
        (["lumbar_spine", "vertebra_L6"], "lumbar_spine and vertebra_L6 both hold vertebrae_L6"),
        (["costal_cartilages", "ribs_and_cartilages"], "costal_cartilages and ribs_and_cartilages both hold costal"),
    ],
)
def test_overlap_is_told_before_any_label_is_read(structures, words):
    with pytest.raises(UserError, match=f"{words}.* Remove one of them"):
        check_structures(structures)
    check_structures(structures[:-1])


def test_the_classes_to_ask_a_labeller_for():
    assert wanted_classes(load_scheme(V2), ["sacrum", "maxilla", "kidney"]) == [
        "kidney_right",
        "kidney_left",
        "sacrum",
        "vertebrae_S1",
    ]
    assert wanted_classes(load_scheme("verse"), ["vertebra_L6", "lumbar_spine"])[-1] == "vertebrae_L6"
    assert wanted_classes(load_scheme("ctpelvic1k"), ["lumbar_spine", "kidney"]) == ["lumbar_spine"]
    with pytest.raises(UserError, match="knows none of the structures maxilla, mandible"):
        wanted_classes(load_scheme(V2), ["maxilla", "mandible"])


@pytest.mark.parametrize("groups", [SPIDER, CHEST])
def test_lookup(groups):
    """In the order of the list, whatever the order of the ids; every class nobody asked for is background."""
    for order in (list(groups), list(reversed(groups))):
        lookup = structure_lookup(load_scheme(V2), order)
        assert lookup.dtype == np.uint8 and len(lookup) == 118
        for value, structure in enumerate(order, start=1):
            assert set(np.flatnonzero(lookup == value).tolist()) == groups[structure]
        assert set(lookup) == set(range(len(order) + 1)) and lookup[0] == 0


def test_remap_applies_first_and_only_once():
    scheme = {1: "spleen", 2: "liver", 3: "aorta"}
    assert structure_lookup(scheme, ["aorta", "liver"], {5: 3}).tolist() == [0, 0, 2, 1, 0, 1]
    assert structure_lookup(scheme, ["aorta", "liver"], {2: 3, 3: 2}).tolist() == [0, 0, 1, 2]
    lookup = structure_lookup(load_scheme(V2), ["costal_cartilages"], {118: 117})
    assert len(lookup) == 119 and np.flatnonzero(lookup).tolist() == [117, 118]


def test_background_stays_background():
    assert structure_lookup({0: "liver", 1: "spleen"}, ["liver", "spleen"])[0] == 0


def test_a_sixth_lumbar_vertebra_is_a_vertebra_but_need_not_be_annotated():
    lookup = structure_lookup(load_scheme("verse"), ["vertebrae", "kidney"])
    assert np.flatnonzero(lookup == 1).tolist() == [*range(1, 26), 28] and 2 not in lookup
    assert annotated_structures(load_scheme("ctspine1k"), ["vertebrae", "sacrum"]) == [True, False]
    assert annotated_structures(load_scheme("ctpelvic1k"), ["vertebrae", "sacrum", "hip"]) == [False, True, True]


def test_another_version_has_other_ids_for_the_same_names():
    """7 is the aorta in version 1 and the pancreas in version 2."""
    assert structure_lookup({7: "aorta", 10: "pancreas"}, ["aorta", "pancreas"]).tolist()[7::3] == [1, 2]
    assert load_scheme(V2)[7] == "pancreas"


def test_half_a_structure_is_not_annotated():
    left = {3: "kidney_left", 5: "liver"}
    assert annotated_structures(left, ["kidney", "liver", "hip"]) == [False, True, False]
    assert structure_lookup(left, ["kidney", "liver"]).tolist() == [0, 0, 0, 0, 0, 2]
    whole = {4: "kidney", 5: "liver"}
    assert annotated_structures(whole, ["kidney"]) == [True] and structure_lookup(whole, ["kidney"])[4] == 1
    assert annotated_structures({1: "heart"}, ["heart"]) == [True]


@pytest.mark.parametrize(
    "typed, near", [("kidneys", "kidney"), ("lungleft", "lung_left"), ("Ribs", "ribs"), ("zz", "")]
)
def test_unknown_structure(typed, near):
    for ask in (
        lambda: structure_lookup(load_scheme(V2), ["liver", typed]),
        lambda: annotated_structures({}, [typed]),
        lambda: check_structures(["liver", typed]),
    ):
        with pytest.raises(UserError) as caught:
            ask()
        message = str(caught.value)
        assert f"'{typed}'" in message and "costal_cartilages" in message and f"Did you mean {near}" in message


def test_unknown_scheme():
    with pytest.raises(
        UserError, match=r"'totalsegmentator_v9' is not known; expected one of: .*\btotalsegmentator_v2\b"
    ):
        load_scheme("totalsegmentator_v9")
    with pytest.raises(UserError):
        load_scheme("structures")
    with pytest.raises(UserError):
        load_scheme("../labels/totalsegmentator_v2")


def test_overlapping_structures(monkeypatch):
    monkeypatch.setattr("pipeline.structures.load_structures", lambda: {"spine": ("l5", "l4"), "lumbar": ("l5",)})
    with pytest.raises(UserError, match="spine and lumbar both hold l5"):
        structure_lookup({1: "l5", 2: "l4"}, ["spine", "lumbar"])
