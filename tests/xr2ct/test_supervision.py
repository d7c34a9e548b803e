"""What a model is told of a case: a subset of structures, missing annotations, the window."""

from dataclasses import replace

import numpy as np
import pytest

from tests.xr2ct.cohort import WINDOW, write_cohort
from xr2ct.cases import Cases, open_task
from xr2ct.errors import UserError
from xr2ct.models.supervision import choose_structures
from xr2ct.sampling import Lattice, Points


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    task, shards = open_task([write_cohort(tmp_path_factory.mktemp("supervision"), 2)], "parallel", WINDOW)
    return task, Cases(shards, "parallel")


def everywhere(task):
    return Lattice(*map(np.arange, task.shape), task.shape)


def annotated_as(example, *status):
    return replace(example, case=replace(example.case, label_status=np.array(status, np.uint8)))


@pytest.mark.parametrize(
    ("names", "ids"),
    [((), (0, 1, 2, 3)), (("rod",), (0, 2)), (("plate", "ball"), (0, 1, 3)), (("none",), ())],
    ids=["all", "one", "two in another order", "none"],
)
def test_structures_are_chosen_by_name_in_the_order_of_the_task(opened, names, ids):
    assert choose_structures(opened[0], names).ids == ids


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["rood"], r"structure 'rood' is not known; expected one of: ball, rod, plate, none\. Did you mean 'rod'\?"),
        (["none", "rod"], r"'structures' is \['none', 'rod'\]; expected 'none' alone"),
    ],
)
def test_an_impossible_choice_is_refused_in_words(opened, names, message):
    with pytest.raises(UserError, match=message):
        choose_structures(opened[0], names)


def test_intensity_is_the_window_mapped_to_one(opened):
    task, cases = opened
    intensity = choose_structures(task, ()).intensity([cases[0], cases[1]], everywhere(task))
    assert intensity.shape == (2, 20 * 24 * 28)
    expected = (cases[1].case.ct_hu.ravel().clip(*WINDOW) + 1000.0) / 2500.0
    assert intensity[1].numpy() == pytest.approx(expected, abs=1e-6)


def test_a_structure_that_is_not_chosen_is_background(opened):
    task, cases = opened
    supervision, true = choose_structures(task, ("plate",)), cases[0].case.label
    label, annotated = supervision.labels([cases[0]], everywhere(task))
    assert label[0].numpy().tolist() == (true == 3).astype(int).ravel().tolist()
    assert annotated.tolist() == [[True, True]]
    assert supervision.labels_of(np.array([0, 1, 1], np.uint8)).tolist() == [0, 3, 3]


def test_voxels_that_nobody_may_judge_stay_so(opened):
    supervision = choose_structures(opened[0], ("rod",))
    assert supervision.classes_of(np.array([0, 1, 2, 3, 255], np.uint8)).tolist() == [0, 0, 1, 0, 255]


def test_a_case_without_a_chosen_structure_is_ignored(opened):
    task, cases = opened
    partly = annotated_as(cases[1], 3, 3, 0, 3)
    label, annotated = choose_structures(task, ()).labels([cases[0], partly], everywhere(task))
    assert label[1].numpy().tolist() == cases[1].case.label.ravel().tolist()
    assert annotated.tolist() == [[True] * 4, [True, True, False, True]]
    label, annotated = choose_structures(task, ("rod",)).labels([cases[0], partly], everywhere(task))
    assert (label[0] != 255).all()
    assert (label[1] == 255).all()
    assert annotated.tolist() == [[True, True], [True, False]]


def test_a_structure_that_is_absent_or_cut_counts_as_annotated(opened):
    """label_status: 0 nobody looked, 1 looked for and absent, 2 cut by the field of view, 3 whole."""
    task, cases = opened
    supervision = choose_structures(task, ())
    assert supervision.annotated(annotated_as(cases[0], 3, 1, 0, 2)).tolist() == [True, True, False, True]


def test_scattered_voxels_have_their_own_targets(opened):
    task, cases = opened
    voxels = np.argwhere(cases[0].case.label == 1)[[5, 0, 40]]
    points, supervision = Points(voxels, task.shape), choose_structures(task, ())
    assert supervision.labels([cases[0]], points)[0].tolist() == [[1, 1, 1]]
    assert supervision.intensity([cases[0]], points).tolist() == [pytest.approx([1300 / 2500] * 3)]
