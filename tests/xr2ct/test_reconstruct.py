"""Reconstructions overlay the CTs they stand for, repeat to the byte, and refuse X-rays of another kind."""

import gzip
import json

import nibabel as nib
import numpy as np
import pytest

from tests.phantoms import phantom_case, write_phantom_shard, xrays_of
from tests.xr2ct.cohort import TINY, WINDOW, write_cohort
from xr2ct.cases import Cases
from xr2ct.checkpoint import load_checkpoint
from xr2ct.errors import UserError
from xr2ct.evaluate import COLUMNS, evaluate
from xr2ct.nifti import save_nifti
from xr2ct.reconstruct import reconstruct
from xr2ct.shards import open_shards
from xr2ct.tables import read_csv
from xr2ct.train import build_trained, train
from xr2ct.versions import RESULT_VERSION


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reconstruct")
    shards = {"train": write_cohort(folder, 3), "test": write_cohort(folder, 2, split="test", seed=1)}
    for model, settings in (("spider", TINY), ("backprojection", {}), ("mean", {})):
        train(
            model=model,
            simulator="parallel",
            shards=[shards["train"]],
            out=folder / model,
            settings=settings,
            window=WINDOW,
            device="cpu",
        )
    return shards | {"folder": folder}


def run(files, out, model="spider", **changes):
    values = {"checkpoint": files["folder"] / model / "model.pt", "shards": [files["test"]], "out": out}
    reconstruct(**values | {"device": "cpu"} | changes)
    return json.loads((out / "index.json").read_text())


def test_the_index_lists_every_case_with_what_the_evaluation_needs(files, tmp_path):
    index = run(files, tmp_path / "my-run")
    seconds = [case.pop("seconds") for case in index["cases"]]
    assert all(0 < value < 60 for value in seconds)
    assert index == {
        "schema": "xr2ct/reconstruction",
        "schema_version": "1.0.0",
        "result_version": RESULT_VERSION["reconstruct"],
        "run": "my-run",
        "model": "spider",
        "seed": 0,
        "simulator": "parallel",
        "window_hu": [-1000.0, 1500.0],
        "structures": ["background", "ball", "rod", "plate"],
        "cases": [
            {
                "case": f"test{i}",
                "split": "test",
                "dataset": "phantom",
                "subject_key": f"key-test{i}",
                "derived_from": "",
                "ct": f"test{i}/ct.nii.gz",
                "label": f"test{i}/label.nii.gz",
            }
            for i in range(2)
        ],
    }


def test_volumes_hold_the_prediction_in_the_world_of_the_case(files, tmp_path):
    run(files, tmp_path / "run")
    model, _ = build_trained(load_checkpoint(files["folder"] / "spider" / "model.pt"))
    for example in Cases(open_shards([files["test"]]), "parallel"):
        prediction = model.predict(example.xray, example.case.affine)
        for name, array, kind in (("ct", prediction.ct_hu, np.int16), ("label", prediction.label, np.uint8)):
            image = nib.load(tmp_path / "run" / example.case.id / f"{name}.nii.gz")
            assert image.get_data_dtype() == kind
            assert np.array_equal(np.asanyarray(image.dataobj), array.transpose(2, 1, 0))
            assert image.affine == pytest.approx(example.case.affine)
            assert image.header.get_xyzt_units()[0] == "mm"


def test_an_off_centre_voxel_is_found_at_its_world_position(tmp_path):
    volume = np.zeros((4, 6, 8), np.int16)
    volume[3, 1, 5] = 7
    save_nifti(tmp_path / "v.nii.gz", volume, np.array([[2.0, 0, 0, -9], [0, 3, 0, 20], [0, 0, 5, 100], [0, 0, 0, 1]]))
    image = nib.load(tmp_path / "v.nii.gz")
    index = np.argwhere(np.asanyarray(image.dataobj) == 7)[0]
    assert (image.affine @ [*index, 1])[:3] == pytest.approx([2 * 5 - 9, 3 * 1 + 20, 5 * 3 + 100])


def test_the_same_reconstruction_is_the_same_bytes(files, tmp_path):
    for name in "ab":
        run(files, tmp_path / name)
    for path in sorted((tmp_path / "a").rglob("*.nii.gz")):
        content = path.read_bytes()
        assert content == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
        assert content[4:8] == b"\0\0\0\0"  # gzip's time stamp
        assert gzip.decompress(content)


def test_a_model_without_structures_writes_no_label(files, tmp_path):
    index = run(files, tmp_path / "run", "backprojection")
    assert [case["label"] for case in index["cases"]] == [None, None]
    assert not list((tmp_path / "run").rglob("label.nii.gz"))


def test_structures_that_a_run_was_not_to_learn_are_not_scored(files, tmp_path):
    """A Dice of 0 would say that it failed at them."""
    subset = TINY | {"structures": ["rod"], "steps": 1}
    shard = [files["train"]]
    train(model="spider", simulator="parallel", shards=shard, out=tmp_path / "m", settings=subset, window=WINDOW)
    index = run(files, tmp_path / "r", checkpoint=tmp_path / "m" / "model.pt")
    assert index["structures"] == ["background", "", "rod", ""]
    evaluate(
        reconstructions=tmp_path / "r" / "index.json", shards=[files["test"]], window=WINDOW, out=tmp_path / "s.csv"
    )
    rows = [row for row in read_csv(tmp_path / "s.csv", COLUMNS) if row["metric"] == "dice"]
    assert {row["structure"] for row in rows if row["value"] == "nan"} == {"ball", "plate"}
    assert {row["reason"] for row in rows if row["value"] == "nan"} == {"the model does not know this structure"}


def test_another_simulator_can_be_asked_for_and_is_recorded(files, tmp_path):
    index = run(files, tmp_path / "run", "backprojection", simulator="cone")
    assert index["simulator"] == "cone"
    run(files, tmp_path / "parallel", "backprojection")
    cone, parallel = ((tmp_path / name / "test0" / "ct.nii.gz").read_bytes() for name in ("run", "parallel"))
    assert cone != parallel


def write_other(folder, **changes):
    return write_phantom_shard(folder / "other.h5", [phantom_case("other", **changes)], split="test")


def test_shards_that_do_not_fit_the_model_are_refused_before_any_work(files, tmp_path):
    with pytest.raises(UserError, match=r"simulator 'conne'.*cone, parallel.*Did you mean 'cone'\?"):
        run(files, tmp_path / "run", simulator="conne")
    with pytest.raises(UserError, match=r"grid \(z, y, x\) \(20, 24, 26\); expected \(20, 24, 28\) as in training"):
        run(files, tmp_path / "run", shards=[files["test"], write_other(tmp_path, shape=(20, 24, 26))])
    case = phantom_case("x")
    one_view = {"parallel": xrays_of(case.ct_hu, case.affine, views=("PA",), backend="parallel")}
    with pytest.raises(UserError, match=r"1 views \(PA\) by simulator parallel; expected 2 views \(PA, LAT\)"):
        run(files, tmp_path / "run", shards=[write_other(tmp_path, xrays=one_view)])
    assert not (tmp_path / "run").exists()


def test_a_case_given_twice_is_refused_and_leaves_no_index(files, tmp_path):
    with pytest.raises(UserError, match="case test0 occurs twice"):
        run(files, tmp_path / "run", "mean", shards=[files["test"], files["test"]])
    assert not (tmp_path / "run" / "index.json").exists()


def test_a_checkpoint_with_other_parameters_is_refused_in_words(files):
    content = load_checkpoint(files["folder"] / "spider" / "model.pt")
    del content["state"]["hu_weight"]
    with pytest.raises(UserError, match="another version of xr2ct.* Train it again"):
        build_trained(content)
