"""The nearest training case by X-ray, on cohorts of three."""

import numpy as np
import pytest

from tests.phantoms import phantom_case, write_phantom_shard
from tests.xr2ct.cohort import WINDOW, write_cohort
from tests.xr2ct.test_mean import TASK, example
from xr2ct.cases import Example
from xr2ct.errors import UserError
from xr2ct.models.nearest import Nearest, NearestSettings
from xr2ct.nifti import read_nifti
from xr2ct.reconstruct import reconstruct
from xr2ct.shards import Shard, Xray
from xr2ct.train import train


def seen(image, hu):
    """A case of constant HU whose one view is `image`."""
    case = example([[hu] * 3, [hu] * 3], [[0, 1, 255], [2, 2, 0]]).case
    empty = (np.zeros(shape, np.float32) for shape in ((1, 3, 4), (1, 4), (1, 3, 3)))
    return Example(case, Xray(["PA"], np.array([image], np.float32), *empty, attrs={}))


@pytest.fixture
def model():
    model = Nearest(TASK, NearestSettings())
    model.prepare([seen([[0, 0], [0, 0]], 5), seen([[3, 0], [0, 0]], 40), seen([[0, 2], [2, 2]], 2000)])
    return model


def test_the_distance_is_the_mean_squared_difference(model):
    asked = seen([[1, 1], [0, 0]], 0).xray
    assert model.distances(asked).tolist() == [0.5, 1.25, (1 + 1 + 4 + 4) / 4]
    assert model.predict(asked, np.eye(4)).ct_hu.tolist() == [[[5] * 3] * 2]
    # case 2 is nearer in squares, 12 to 16; in absolute values case 0 would be, 4 to 6
    assert model.distances(seen([[0, 0], [0, 4]], 0).xray).tolist() == [16 / 4, 25 / 4, 12 / 4]


def test_the_answer_is_the_windowed_ct_with_its_labels(model):
    found = model.predict(seen([[0, 2], [2, 2]], 0).xray, np.eye(4))
    assert found.ct_hu.tolist() == [[[1500] * 3] * 2]
    assert found.label.tolist() == [[[0, 1, 0], [2, 2, 0]]]  # what nobody may judge is background
    found.ct_hu[...] = 0
    assert model.ct_hu[2, 0, 0, 0] == 1500  # the answer is a copy


def test_the_first_of_equals(model):
    model.prepare([seen([[1, 1], [1, 1]], 1), seen([[1, 1], [1, 1]], 2)])
    assert model.predict(seen([[0, 0], [0, 0]], 0).xray, np.eye(4)).ct_hu[0, 0, 0] == 1


def test_other_detectors_are_refused_in_words(model):
    other = seen([[1, 1, 1], [0, 0, 0]], 0)
    with pytest.raises(
        UserError, match=r"these X-rays: images .* are \(1, 2, 3\); expected \(1, 2, 2\) as in training"
    ):
        model.predict(other.xray, np.eye(4))
    with pytest.raises(UserError, match=r"training case a: images .* are \(1, 2, 3\)"):
        model.prepare([seen([[0, 0], [0, 0]], 5), other])


@pytest.mark.parametrize("simulator", ["parallel", "cone"])
def test_it_finds_the_training_case_that_lies_alike(tmp_path, simulator):
    """Trained, saved, loaded: a phantom moved by a little less than a training case is answered with that one."""
    shifts = {"left": (0.0, 0.0, 3.0), "front": (0.0, 3.0, 0.0), "head": (3.0, 0.0, 0.0)}  # voxels
    known = write_phantom_shard(tmp_path / "train.h5", [phantom_case(n, shift=s) for n, s in shifts.items()])
    asked = [phantom_case(f"like-{n}", shift=tuple(0.8 * x for x in s)) for n, s in reversed(shifts.items())]
    test = write_phantom_shard(tmp_path / "test.h5", asked, split="test")
    common = {"simulator": simulator, "device": "cpu"}
    train(model="nearest", shards=[known], out=tmp_path / "t", settings={}, window=WINDOW, **common)
    reconstruct(checkpoint=tmp_path / "t/model.pt", shards=[test], out=tmp_path / "r", **common)
    shard = Shard(known)
    for i, name in enumerate(shifts):
        ct_hu, _ = read_nifti(tmp_path / f"r/like-{name}/ct.nii.gz")
        label, _ = read_nifti(tmp_path / f"r/like-{name}/label.nii.gz")
        np.testing.assert_array_equal(ct_hu, shard.case(i).ct_hu)
        np.testing.assert_array_equal(label, shard.case(i).label)


def test_every_view_counts(tmp_path):
    """Seen from the side alone two cases are the same; the other view tells them apart."""
    model = Nearest(TASK, NearestSettings())
    side = [[1.0, 2.0], [3.0, 4.0]]
    fronts = ([[0.0, 0.0], [0.0, 1.0]], [[5.0, 0.0], [0.0, 0.0]])
    cases = [seen(side, hu) for hu in (1, 2)]
    for made, front in zip(cases, fronts, strict=True):
        made.xray.__dict__["image"] = np.array([side, front], np.float32)
    model.prepare(cases)
    assert [model.predict(made.xray, np.eye(4)).ct_hu[0, 0, 0] for made in cases] == [1, 2]


def test_a_cohort_answers_itself(tmp_path):
    path = write_cohort(tmp_path, 3)
    train(model="nearest", simulator="parallel", shards=[path], out=tmp_path / "t", settings={}, window=WINDOW)
    reconstruct(checkpoint=tmp_path / "t/model.pt", shards=[path], out=tmp_path / "r")
    for i in range(3):
        np.testing.assert_array_equal(read_nifti(tmp_path / f"r/train{i}/ct.nii.gz")[0], Shard(path).case(i).ct_hu)
