"""Structures by name: the tables are complete, an id is looked up through its name, nothing half annotated passes."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.structures import (
    annotated_structures,
    check_structures,
    load_scheme,
    load_structures,
    structure_lookup,
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


def test_every_member_exists_and_no_two_structures_share_one():
    names, structures = set(load_scheme(V2).values()), load_structures()
    members = [member for group in structures.values() for member in group]
    assert set(members) <= names and len(members) == len(set(members))
    assert all(structures.values())
    assert annotated_structures(load_scheme(V2), list(structures)) == [True] * len(structures)
    assert len(structures) <= 250


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
    with pytest.raises(UserError, match=r"'totalsegmentator_v9' is not known; expected one of: totalsegmentator_v2\b"):
        load_scheme("totalsegmentator_v9")
    with pytest.raises(UserError):
        load_scheme("structures")
    with pytest.raises(UserError):
        load_scheme("../labels/totalsegmentator_v2")


def test_overlapping_structures(monkeypatch):
    monkeypatch.setattr("pipeline.structures.load_structures", lambda: {"spine": ("l5", "l4"), "lumbar": ("l5",)})
    with pytest.raises(UserError, match="spine and lumbar both hold l5"):
        structure_lookup({1: "l5", 2: "l4"}, ["spine", "lumbar"])
