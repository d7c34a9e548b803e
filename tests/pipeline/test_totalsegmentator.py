"""TotalSegmentator: stopped in time where it cannot run, and its labels on the voxels of the CT where it can."""

import importlib
import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from pipeline import totalsegmentator
from pipeline.__main__ import main
from pipeline.errors import UserError
from pipeline.files import read_table
from pipeline.structures import load_scheme
from pipeline.totalsegmentator import WEIGHTS, require_weights, segment, weights_folder
from tests.cohorts import ROOT, clean_environment
from tests.phantoms import labelled_phantom

HEART, LUNG = 51, 10
STRUCTURES = ["heart", "lung_left", "sternum"]
CLASSES = ["lung_upper_lobe_left", "lung_lower_lobe_left", "heart", "atrial_appendage_left", "sternum"]
COMPLETE_CUT_ABSENT = [3, 3, 2, 1]
AFFINE = np.array([[2.5, 0, 0, -40], [0, 3.0, 0, -90], [0, 0, 4.0, 100], [0, 0, 0, 1]])
NETWORK = "nnUNetTrainer_4000epochs_NoMirroring__nnUNetPlans__3d_fullres"


@pytest.fixture(autouse=True)
def no_weights(tmp_path, monkeypatch):
    """A home of TotalSegmentator with nothing in it."""
    monkeypatch.delenv("TOTALSEG_WEIGHTS_PATH", raising=False)
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Put a package of TotalSegmentator's name where Python finds it first, and its networks where they belong."""
    names = ("totalsegmentator", *(f"totalsegmentator.{name}" for name in ("config", "nnunet", "python_api")))

    def forget():
        for name in names:
            sys.modules.pop(name, None)
        totalsegmentator.keep_networks.cache_clear()
        importlib.invalidate_caches()

    def write(init="", config="", api="", nnunet="class nnUNetPredictor: pass"):
        folder = tmp_path / "site" / "totalsegmentator"
        folder.mkdir(parents=True)
        for name, text in {"__init__": init, "config": config, "nnunet": nnunet, "python_api": api}.items():
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(folder.parent)
        forget()

    yield write
    forget()


def write_weights(folder, numbers):
    for number in numbers:
        (folder / f"Dataset{number}_TotalSegmentator").mkdir(parents=True)


def phantom():
    """A dense ball off every middle plane in a body of water, air around it: (ct_hu, ids, heart = ball, lung = air)."""
    ct, label = labelled_phantom((40, 44, 48), shift=(6, 0, 0))
    ct[label == 2] = 20
    ids = np.zeros(ct.shape, np.uint8)
    ids[label == 1] = HEART
    ids[ct < -490] = LUNG
    return ct, ids


def stored(array_zyx, axes):
    """The array as NIfTI at the same place in the world, its voxels running along `axes`."""
    image = nib.Nifti1Image(array_zyx.T, AFFINE)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axes))
    image = image.as_reoriented(turn)
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    return image


def fetched(folder, axes="LAS", label=None, case="a"):
    """The phantom, without labels unless they are given, fetched: its case.json."""
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(stored(phantom()[0], axes), folder / "ct.nii.gz")
    more = ["--label", str(label)] if label else []
    assert (
        main(["fetch", "--case", case, "--ct", str(folder / "ct.nii.gz"), *more, "--out", str(folder / "fetch")]) == 0
    )
    return folder / "fetch" / "case.json"


def segment_arguments(record, *more):
    out = str(record.parents[1] / "segment")
    return ["segment", str(record), "--structures", *STRUCTURES, *(more or ["--fast"]), "--out", out]


def labelled(folder):
    """What the ingest and label stages make of the segmented case: its last record."""
    assert main(["ingest", str(folder / "segment/case.json"), "--cube", "56", "--out", str(folder / "ingest")]) == 0
    steps = ["label", str(folder / "ingest/case.json"), "--structures", *STRUCTURES, "--out", str(folder / "label")]
    assert main(steps) == 0
    return json.loads((folder / "label/case.json").read_text())


def centre_and_volume(mask_zyx, affine):
    """World mm and mm^3."""
    centre = (affine @ np.append(np.argwhere(mask_zyx).mean(axis=0)[::-1], 1))[:3]
    return centre, mask_zyx.sum() * abs(np.linalg.det(affine[:3, :3]))


def check_labels(folder):
    """The label stage's output lies on the cube's CT, the ball in its place in the world, and the status is right."""
    case = labelled(folder)
    assert case["status"] == "ok", case.get("reason")
    assert case["label_status"] == COMPLETE_CUT_ABSENT
    label, ct = (nib.load(folder / "label" / case[name]) for name in ("label", "ct"))
    assert label.shape == ct.shape == (56, 56, 56) and label.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(label.affine, ct.affine)
    ids = np.asarray(label.dataobj).T
    assert set(np.unique(ids)) == {0, 1, 2}
    centre, volume = centre_and_volume(ids == 1, label.affine)
    truth, true_volume = centre_and_volume(phantom()[1] == HEART, AFFINE)
    np.testing.assert_allclose(centre, truth, atol=1.0)
    assert volume == pytest.approx(true_volume, rel=0.1)


def test_the_weights_are_looked_for_where_the_package_does(tmp_path, monkeypatch):
    assert weights_folder() == tmp_path / "home" / "nnunet" / "results"
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "weights"))
    assert weights_folder() == tmp_path / "weights"
    monkeypatch.delenv("TOTALSEG_WEIGHTS_PATH")
    monkeypatch.delenv("TOTALSEG_HOME_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights_folder() == tmp_path / ".totalsegmentator" / "nnunet" / "results"
    monkeypatch.setenv("HOME", "/")
    assert str(weights_folder()) == "/tmp/.totalsegmentator/nnunet/results"


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize(("fast", "there", "missing"), [(True, [291], "[297"), (False, [291, 294], "[292, 293, 295")])
def test_missing_weights_are_named_with_the_folder_and_the_command(fast, there, missing, crop):
    write_weights(weights_folder(), there)
    missing += ", 298]" if crop else "]"
    with pytest.raises(UserError) as caught:
        require_weights(fast=fast, crop=crop)
    task = "total_fast" if fast else "total"
    for words in (missing, str(weights_folder()), f"totalseg_download_weights -t {task} ", "labels.missing to none"):
        assert words in str(caught.value)
    write_weights(weights_folder(), set(WEIGHTS[fast]) - set(there))
    require_weights(fast=fast, crop=False)
    if crop:
        with pytest.raises(UserError, match=r"weights \[298\] are not in"):
            require_weights(fast=fast, crop=True)
        write_weights(weights_folder(), [298])
        require_weights(fast=fast, crop=True)


def test_without_the_package_the_message_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "totalsegmentator", None)
    with pytest.raises(UserError, match=r"not installed. Run: pip install 'xr2ct\[totalsegmentator\]'"):
        segment(tmp_path / "ct.nii.gz", fast=True, device="cpu")


def test_nothing_of_the_package_is_imported_before_its_weights_are_found(tmp_path, package, capsys):
    package(init="raise SystemExit('must not be imported')")
    record = fetched(tmp_path)
    assert main(segment_arguments(record)) == 2
    error = capsys.readouterr().err
    assert error.startswith("ERROR: TotalSegmentator's weights [297, 298] are not in") and error.count("\n") == 1
    assert not (tmp_path / "segment/case.json").exists()


def test_a_torchvision_of_another_build_is_told_and_another_fault_is_not_hidden(tmp_path, package):
    config = "setup_totalseg = get_config_key = set_config_key = lambda *values: None"
    package(config=config, api="def totalsegmentator(*values, **options): raise RuntimeError(MESSAGE)")
    write_weights(weights_folder(), WEIGHTS[True])
    fetched(tmp_path)
    api = importlib.import_module("totalsegmentator.python_api")
    api.MESSAGE = "operator torchvision::nms does not exist"
    with pytest.raises(UserError, match="torchvision, which does not fit the torch .* same package index"):
        segment(tmp_path / "ct.nii.gz", fast=True, device="cpu")
    api.MESSAGE = "something else"
    with pytest.raises(RuntimeError, match="something else"):
        segment(tmp_path / "ct.nii.gz", fast=True, device="cpu")


@pytest.mark.parametrize("axes", ["RAS", "LAS", "PIR"])
@pytest.mark.parametrize(("fast", "all_classes"), [(True, False), (False, False), (False, True)])
def test_its_labels_go_onto_the_cube_and_no_statistics_are_sent(tmp_path, package, axes, fast, all_classes):
    package(
        config="settings, get_config_key = {}, lambda name: settings.get(name)\n"
        "def setup_totalseg(): settings['send_usage_stats'] = True\n"
        "def set_config_key(name, value): settings[name] = value\n",
        api="import nibabel as nib, numpy as np\n"
        "from totalsegmentator.config import settings\n"
        "def totalsegmentator(image, output, **options):\n"
        "    assert not settings['send_usage_stats'] and output is None and options['ml']\n"
        f"    assert options['fast'] is {fast} and options['device'] == 'gpu'\n"
        f"    assert options['roi_subset'] == {None if all_classes else CLASSES}\n"
        "    hu = image.get_fdata()\n"
        f"    ids = np.select([hu > 160, hu < -490], [{HEART}, {LUNG}])\n"
        "    return nib.Nifti1Image(ids.astype('u1'), image.affine)\n",
    )
    write_weights(weights_folder(), [*WEIGHTS[fast], *([] if all_classes else [298])])
    options = ["--fast"] * fast + ["--all-classes"] * all_classes
    before = fetched(tmp_path, axes)
    others = {"label_scheme": "verse", "label_remap": {"51": 1}}  # what a source says of labels that this CT lacks
    before.write_text(json.dumps(json.loads(before.read_text()) | others))
    assert main(segment_arguments(before, "--device", "gpu", *options)) == 0
    check_labels(tmp_path)
    record = json.loads((tmp_path / "segment/case.json").read_text())
    assert sorted(record["label_names"].values()) == sorted(
        load_scheme("totalsegmentator_v2").values() if all_classes else CLASSES
    )
    assert (record["label_scheme"], record["label_remap"]) == ("totalsegmentator_v2", {})
    assert record["labeller"].startswith("TotalSegmentator ") and record["labeller"].endswith("fast") is fast


@pytest.mark.parametrize(
    ("ids", "move", "code"),
    [(HEART, 0.0, ""), (HEART, 1.0, "E_LABEL_AFFINE"), (0, 0.0, ""), (118, 0.0, "E_LABEL_VALUES")],
)
def test_labels_beside_the_ct_set_the_case_aside_and_none_of_the_wanted_is_an_answer(
    tmp_path, monkeypatch, ids, move, code
):
    image = stored(phantom()[1], "LAS")
    affine = image.affine.copy()
    affine[0, 3] += move
    answer = np.where(np.asarray(image.dataobj) > 0, ids, 0).astype(np.uint8), affine
    monkeypatch.setattr(totalsegmentator, "segment", lambda ct, **options: answer)
    assert main(segment_arguments(fetched(tmp_path))) == 0
    case = labelled(tmp_path)
    assert case.get("code", "") == code
    if not ids:
        assert case["label_status"] == [3, 1, 1, 1]


def test_what_it_was_not_asked_for_is_not_annotated(tmp_path, monkeypatch):
    image = stored(phantom()[1], "PIR")
    answer = np.asarray(image.dataobj) * (np.asarray(image.dataobj) == HEART), image.affine
    monkeypatch.setattr(totalsegmentator, "segment", lambda ct, **options: answer)
    record = fetched(tmp_path, "PIR")
    assert main(["segment", str(record), "--structures", "heart", "--out", str(tmp_path / "segment")]) == 0
    assert labelled(tmp_path)["label_status"] == [3, 3, 0, 0]


def test_it_is_asked_only_for_a_case_without_labels_and_a_bad_case_is_handed_on(tmp_path, monkeypatch):
    monkeypatch.setattr(totalsegmentator, "segment", lambda ct, **options: pytest.fail("was asked"))
    nib.save(stored(phantom()[1], "LAS"), tmp_path / "label.nii.gz")
    record = fetched(tmp_path, label=tmp_path / "label.nii.gz")
    assert main(segment_arguments(record)) == 0
    check_labels(tmp_path)
    assert "labeller" not in json.loads((tmp_path / "segment/case.json").read_text())
    record.write_text(json.dumps(json.loads(record.read_text()) | {"status": "quarantined", "code": "E_ID"}))
    assert main(segment_arguments(record)) == 0
    assert labelled(tmp_path)["code"] == "E_ID"


def test_a_ct_that_cannot_be_read_is_set_aside(tmp_path, package):
    package(
        config="setup_totalseg = get_config_key = set_config_key = lambda *values: False", api="totalsegmentator = 0"
    )
    write_weights(weights_folder(), [*WEIGHTS[True], 298])
    record = fetched(tmp_path)
    (tmp_path / "ct.nii.gz").write_bytes((tmp_path / "ct.nii.gz").read_bytes()[:-900])
    assert main(segment_arguments(record)) == 0
    case = json.loads((tmp_path / "segment/case.json").read_text())
    assert (case["status"], case["stage"], case["code"]) == ("quarantined", "segment", "E_GZIP_TRUNCATED")


ANSWERS = """
import nibabel as nib, numpy as np
asked = []
def totalsegmentator(image, output, **options):
    asked.append(options)
    return nib.Nifti1Image((image.get_fdata() > 160).astype('u1') * HEART, image.affine)
"""
SETTINGS = "setup_totalseg = get_config_key = set_config_key = lambda *values: False"


def segment_all(records, folder, *more):
    """Of many records at once: the table of what was made, {case: label}."""
    out = ["--ahead", str(folder / "batch.tsv"), "--out", str(folder / "segment")]
    assert main(["segment", *map(str, records), "--structures", *STRUCTURES, "--fast", *more, *out]) == 0
    return {row["case"]: row["label"] for row in read_table(folder / "batch.tsv")}


def segment_one(record, folder, *more):
    out = folder / "segment" / json.loads(record.read_text())["case"]
    assert main(["segment", str(record), "--structures", *STRUCTURES, "--fast", *more, "--out", str(out)]) == 0
    return json.loads((out / "case.json").read_text())


def test_many_are_labelled_in_one_go_and_each_finds_its_own(tmp_path, package, capsys):
    package(config=SETTINGS, api=ANSWERS.replace("HEART", str(HEART)))
    write_weights(weights_folder(), [*WEIGHTS[True], 298])
    records = [fetched(tmp_path / name, axes, case=name) for name, axes in (("a", "LAS"), ("cut", "RAS"), ("b", "PIR"))]
    nib.save(stored(phantom()[1], "LAS"), tmp_path / "label.nii.gz")
    records.append(fetched(tmp_path / "own", label=tmp_path / "label.nii.gz", case="own"))
    records.append(fetched(tmp_path / "bad", case="bad"))
    records[-1].write_text(json.dumps(json.loads(records[-1].read_text()) | {"status": "quarantined", "code": "E_ID"}))
    cut = tmp_path / "cut/ct.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-900])
    made = {"a": "made", "cut": "E_GZIP_TRUNCATED", "b": "made", "own": "its own", "bad": "set aside"}
    assert segment_all(records, tmp_path) == made
    assert "cut: E_GZIP_TRUNCATED: " in capsys.readouterr().err
    asked = importlib.import_module("totalsegmentator.python_api").asked
    assert len(asked) == 2

    cases = {case: segment_one(record, tmp_path) for case, record in zip(made, records, strict=True)}
    assert segment_all(records, tmp_path) == made and len(asked) == 2  # nothing is asked again
    assert {case: record.get("code") for case, record in cases.items()} == {
        "a": None, "cut": "E_GZIP_TRUNCATED", "b": None, "own": None, "bad": "E_ID"
    }  # fmt: skip
    for case, axes in (("a", "LAS"), ("b", "PIR")):
        label = nib.load(tmp_path / "segment" / case / cases[case]["label"])
        np.testing.assert_array_equal(label.affine, stored(phantom()[0], axes).affine)
        np.testing.assert_array_equal(np.asarray(label.dataobj) == HEART, stored(phantom()[0], axes).get_fdata() > 160)
    assert cases["own"]["label"].endswith("label.nii.gz") and not (tmp_path / "segment/own/label.nii.gz").exists()


@pytest.mark.parametrize("change", ["ct", "classes", "kind", "half"])
def test_a_label_map_of_another_ct_or_question_or_a_killed_run_is_made_again(tmp_path, package, change):
    package(config=SETTINGS, api=ANSWERS.replace("HEART", str(HEART)))
    write_weights(weights_folder(), [*WEIGHTS[True], *WEIGHTS[False], 298])
    record = fetched(tmp_path, case="a")
    segment_all([record], tmp_path)
    asked = importlib.import_module("totalsegmentator.python_api").asked
    options = []
    if change == "ct":
        nib.save(stored(phantom()[0] + 1, "LAS"), tmp_path / "ct.nii.gz")
    elif change == "classes":
        options = ["--all-classes"]
    elif change == "kind":
        assert main(["segment", str(record), "--structures", *STRUCTURES, "--out", str(tmp_path / "segment/a")]) == 0
    else:
        (tmp_path / "segment/a/label.json").unlink()
    if change != "kind":
        segment_one(record, tmp_path, *options)
    assert len(asked) == 2


def test_a_ct_without_orientation_is_labelled_where_the_user_says_it_lies(tmp_path, package):
    package(config=SETTINGS, api=ANSWERS.replace("HEART", str(HEART)))
    write_weights(weights_folder(), [*WEIGHTS[True], 298])
    image = stored(phantom()[0], "LAS")
    image.set_sform(image.affine, 0)
    image.set_qform(image.affine, 0)
    nib.save(image, tmp_path / "ct.nii.gz")
    ct, out = str(tmp_path / "ct.nii.gz"), str(tmp_path / "fetch")
    assert main(["fetch", "--case", "a", "--ct", ct, "--assume-orientation", "LAS", "--out", out]) == 0
    assert segment_all([tmp_path / "fetch/case.json"], tmp_path) == {"a": "made"}
    record = segment_one(tmp_path / "fetch/case.json", tmp_path)
    assert record["status"] == "ok"
    label = nib.load(tmp_path / "segment/a/label.nii.gz")
    assert "".join(nib.aff2axcodes(label.affine)) == "LAS"
    np.testing.assert_array_equal(np.asarray(label.dataobj) == HEART, image.get_fdata() > 160)


def test_only_one_record_without_ahead(tmp_path, capsys):
    record = str(fetched(tmp_path))
    assert main(["segment", record, record, "--structures", "heart", "--out", str(tmp_path / "segment")]) == 2
    assert "segment was given 2 records; expected one, or --ahead TABLE." in capsys.readouterr().err


def test_a_network_is_loaded_once_for_each_device_and_checkpoint(package):
    package(
        nnunet="class nnUNetPredictor:\n"
        "    loads = []\n"
        "    def __init__(self, device, step): self.device, self.step, self.network = device, step, None\n"
        "    def initialize_from_trained_model_folder(self, folder, use_folds, checkpoint_name='final'):\n"
        "        self.loads.append((folder, checkpoint_name))\n"
        "        self.network, self.folds = object(), use_folds\n"
    )
    totalsegmentator.keep_networks()
    totalsegmentator.keep_networks()
    nnunet = importlib.import_module("totalsegmentator.nnunet")

    def load(device, step, folder, name="checkpoint_final.pth"):
        predictor = nnunet.nnUNetPredictor(device, step)
        predictor.initialize_from_trained_model_folder(folder, [0], checkpoint_name=name)
        assert (predictor.device, predictor.step, predictor.folds) == (device, step, [0])
        return predictor.network

    first = load("cpu", 0.5, "a")
    assert load("cpu", 0.8, "a") is first
    others = [load("cuda", 0.5, "a"), load("cpu", 0.5, "b"), load("cpu", 0.5, "a", "best")]
    assert len({first, *others}) == 4 and len(nnunet.nnUNetPredictor.loads) == 4


def write_network(home, number="297", spacing_mm=3.0):
    """A network of the real layout that looks at one voxel: above 160 HU heart, below -490 HU lung, else background."""
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    names = load_scheme("totalsegmentator_v2")
    settings = {
        "n_stages": 2,
        "features_per_stage": [2, 1],
        "kernel_sizes": [[3, 3, 3]] * 2,
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "conv_bias": True,
        "norm_op": None,
    }
    by_name = {"conv_op": "torch.nn.Conv3d", "nonlin": "torch.nn.ReLU"}
    network = PlainConvUNet(1, num_classes=1 + len(names), conv_op=torch.nn.Conv3d, nonlin=torch.nn.ReLU, **settings)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        first, last = network.encoder.stages[0][0].convs[0].conv, network.decoder.stages[0].convs[0].conv
        head = network.decoder.seg_layers[0]
        for channel, sign in enumerate((1, -1)):  # what is above 0 HU, what is below
            first.weight[channel, 0, 1, 1, 1] = sign
            last.weight[channel, 2 + channel, 1, 1, 1] = 1
        head.bias.fill_(-100)
        head.bias[0] = 0
        for channel, (value, threshold) in enumerate(((HEART, 1.6), (LUNG, 4.9))):
            head.weight[value, channel], head.bias[value] = 1, -threshold
    plans = {
        "dataset_name": f"Dataset{number}_TotalSegmentator_total_{spacing_mm:g}mm_1559subj",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 0.0, "std": 100.0, "percentile_00_5": -1000.0, "percentile_99_5": 1000.0}
        },
        "configurations": {
            "3d_fullres": {
                "preprocessor_name": "DefaultPreprocessor",
                "patch_size": [32, 32, 32],
                "spacing": [spacing_mm] * 3,
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": settings | by_name,
                    "_kw_requires_import": list(by_name),
                },
            }
            | {f"resampling_fn_{what}": "resample_data_or_seg_to_shape" for what in ("data", "seg", "probabilities")}
            | {f"resampling_fn_{what}_kwargs": {"order": 1} for what in ("data", "seg", "probabilities")}
        },
    }
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0} | {name: value for value, name in names.items()},
        "file_ending": ".nii.gz",
    }
    checkpoint = {
        "network_weights": network.state_dict(),
        # The trainer of the real networks is found by importing all trainers, hence torchvision; this one is not.
        "trainer_name": "nnUNetTrainer_MOSAIC_1k_QuarterLR_NoMirroring",
        "init_args": {"configuration": "3d_fullres"},
    }
    folder = home / "nnunet" / "results" / plans["dataset_name"] / NETWORK
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")


def test_our_table_of_ids_is_the_packages_own():
    classes = pytest.importorskip("totalsegmentator.map_to_binary", reason="TotalSegmentator is not installed")
    assert classes.class_map["total"] == load_scheme("totalsegmentator_v2")
    assert classes.class_map["total_v1"] == load_scheme("totalsegmentator_v1")
    assert classes.class_map["craniofacial_structures"] == load_scheme("totalsegmentator_craniofacial")


@pytest.mark.slow
@pytest.mark.parametrize(("axes", "options"), [("RAS", ["--all-classes"]), ("LAS", []), ("PIR", [])])
def test_the_real_package_labels_a_ct_of_any_orientation(tmp_path, no_weights, axes, options):
    pytest.importorskip("totalsegmentator", reason="TotalSegmentator is not installed")
    write_network(no_weights)
    if not options:
        write_network(no_weights, "298", 6.0)
    record = fetched(tmp_path, axes)
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *segment_arguments(record, "--fast", *options)],
        cwd=ROOT,
        env={**clean_environment(), **nowhere, "TOTALSEG_HOME_DIR": os.environ["TOTALSEG_HOME_DIR"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    check_labels(tmp_path)
    settings = json.loads((no_weights / "config.json").read_text())
    assert (settings["send_usage_stats"], settings["prediction_counter"]) == (False, 1)


@pytest.mark.slow
def test_the_real_package_loads_its_networks_once_for_many_cts_and_finds_the_same(tmp_path, no_weights, monkeypatch):
    nnunet = pytest.importorskip("totalsegmentator.nnunet", reason="TotalSegmentator is not installed")
    original = nnunet.nnUNetPredictor
    monkeypatch.setattr(nnunet, "nnUNetPredictor", original)  # put back at the end
    totalsegmentator.keep_networks.cache_clear()
    loads = []
    load = original.initialize_from_trained_model_folder
    monkeypatch.setattr(
        original,
        "initialize_from_trained_model_folder",
        lambda self, folder, *more: (loads.append(folder), load(self, folder, *more)),
    )
    write_network(no_weights)
    write_network(no_weights, "298", 6.0)
    records = [fetched(tmp_path / name, axes, case=name) for name, axes in (("a", "LAS"), ("b", "PIR"))]
    assert segment_all(records, tmp_path) == {"a": "made", "b": "made"}
    assert len(loads) == len(set(loads)) == 2
    for name, axes in (("a", "LAS"), ("b", "PIR")):
        segment_one(records[0 if name == "a" else 1], tmp_path)
        label = nib.load(tmp_path / "segment" / name / "label.nii.gz")
        truth = stored(phantom()[1], axes)
        np.testing.assert_array_equal(label.affine, truth.affine)
        found, expected = (np.asarray(image.dataobj) == HEART for image in (label, truth))
        assert 2 * (found & expected).sum() > 0.9 * (found.sum() + expected.sum())
    assert len(loads) == 2
