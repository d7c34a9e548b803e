"""The training mean, by hand."""

import numpy as np
import pytest

from xr2ct.cases import Example, Task
from xr2ct.models.mean import Mean, MeanSettings
from xr2ct.shards import Case, Xray

TASK = Task("parallel", ("PA",), ("background", "heart", "liver"), (1, 2, 3), (-1000.0, 1500.0))


def example(ct_hu, label, status=(3, 3, 3)):
    case = Case(
        id="a",
        subject_key="a",
        dataset="d",
        split="train",
        derived_from="",
        affine=np.eye(4),
        ct_hu=np.array([ct_hu], np.int16),
        label=np.array([label], np.uint8),
        label_status=np.array(status, np.uint8),
        qc_flags=0,
    )
    xray = Xray(["PA"], *(np.zeros(shape, np.float32) for shape in ((1, 2, 2), (1, 3, 4), (1, 4), (1, 3, 3))), attrs={})
    return Example(case, xray)


@pytest.fixture
def prediction():
    model = Mean(TASK, MeanSettings())
    cases = [
        example([[0, 10, 3000], [1, -2000, -1000]], [[0, 1, 1], [255, 2, 0]]),
        example([[1, 30, 1500], [2, -1000, -1000]], [[0, 2, 1], [255, 2, 0]]),
        example([[2, 50, 1500], [6, -1000, -1001]], [[1, 0, 2], [255, 0, 0]], status=(3, 3, 0)),
    ]
    model.prepare(cases)
    return model.predict(cases[0].xray, np.eye(4))


def test_hu_is_the_mean_of_the_windowed_volumes(prediction):
    assert prediction.ct_hu.tolist() == [[[1, 30, 1500], [3, -1000, -1000]]]


def test_label_is_the_most_frequent_class_among_the_annotated_cases(prediction):
    # (0, 2): heart in 2 of 3; (1, 1): liver in 2 of the 2 cases annotated for it, background in 1 of 3
    # (0, 1): liver in 1 of 2 annotated beats heart in 1 of 3; (1, 0): never to be judged, so background
    assert prediction.label.tolist() == [[[0, 2, 1], [0, 2, 0]]]
