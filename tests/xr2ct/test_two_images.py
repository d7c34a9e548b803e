"""Two image files in, a CT out: the same as from a shard, whatever the files, and a warning where they are wrong."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import yaml
from PIL import Image
from torch import nn

from tests.phantoms import AFFINE
from tests.xr2ct.cohort import TINY, WINDOW, write_cohort
from tests.xr2ct.test_two_images_files import write_dicom
from xr2ct.__main__ import main
from xr2ct.cases import Cases
from xr2ct.checkpoint import load_checkpoint, save_checkpoint
from xr2ct.errors import UserError
from xr2ct.image_files import Picture
from xr2ct.models.model import Prediction
from xr2ct.plausibility import Input, attempt
from xr2ct.shards import open_shards
from xr2ct.train import build_trained, train
from xr2ct.two_images import beside, reconstruct_images, turned
from xr2ct.views import trained_geometry

CONE = {"beam": "cone", "views": ["PA", "LAT"], "sdd_mm": 900, "sod_mm": 700, "pixel_mm": 4, "detector_px": [26, 30]}
NAMES = ("PA", "LAT")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny network, the nearest training case (which knows the case of the images) and that case."""
    folder = tmp_path_factory.mktemp("two_images")
    shard = write_cohort(folder, 3)
    for model, settings in (("spider", TINY), ("nearest", {}), ("backprojection", {})):
        train(
            model=model,
            simulator="cone",
            shards=[shard],
            out=folder / model,
            settings=settings,
            window=WINDOW,
            device="cpu",
        )
    example = Cases(open_shards([shard]), "cone")[0]
    for name, image in zip(NAMES, example.xray.image, strict=True):
        np.save(folder / f"{name}.npy", image)
    return folder, example


def run(world, out, images=None, model="nearest", **options):
    folder, _ = world
    images = images or {name: folder / f"{name}.npy" for name in NAMES}
    reconstruct_images(
        checkpoint=folder / model / "model.pt", images=images, out=out / "ct.nii.gz", device="cpu", **options
    )
    return nib.load(out / "ct.nii.gz")


def voxels(image):
    return np.asanyarray(image.dataobj).T


def write_yaml(folder, values):
    (folder / "views.yaml").write_text(yaml.safe_dump(values))
    return folder / "views.yaml"


@pytest.mark.parametrize("model", ["spider", "backprojection"])
@pytest.mark.parametrize("geometry", [None, CONE])
def test_images_as_in_the_shard_give_what_the_shard_gives(model, geometry, world, tmp_path):
    folder, example = world
    trained, _ = build_trained(load_checkpoint(folder / model / "model.pt"))
    expected = trained.predict(example.xray, example.case.affine)
    path = write_yaml(tmp_path, geometry) if geometry else None
    found = run(world, tmp_path, model=model, geometry=path)
    assert np.abs(voxels(found) - expected.ct_hu.astype(int)).max() <= 1
    centred = AFFINE.copy()
    centred[:3, 3] = -3 * (np.array([28, 24, 20]) - 1) / 2
    np.testing.assert_allclose(found.affine, centred)
    assert found.get_data_dtype() == np.int16
    if model == "spider":
        label = nib.load(tmp_path / "label.nii.gz")
        assert (voxels(label) != expected.label).mean() < 0.001 and label.get_data_dtype() == np.uint8
        names = json.loads((tmp_path / "labels.json").read_text())
        assert names == {"0": "background", "1": "ball", "2": "rod", "3": "plate"}
    else:
        assert sorted(path.name for path in tmp_path.glob("*.*")) == sorted(
            ["ct.nii.gz", *(["views.yaml"] if geometry else [])]
        )


def test_structures_that_the_model_cannot_predict_are_not_named(world, tmp_path):
    folder, _ = world
    subset = TINY | {"structures": ["rod"], "steps": 1}
    shards = [folder / "train-0.h5"]
    train(model="spider", simulator="cone", shards=shards, out=tmp_path / "m", settings=subset, window=WINDOW)
    images = {name: folder / f"{name}.npy" for name in NAMES}
    reconstruct_images(checkpoint=tmp_path / "m" / "model.pt", images=images, out=tmp_path / "ct.nii.gz", device="cpu")
    assert json.loads((tmp_path / "labels.json").read_text()) == {"0": "background", "2": "rod"}


def test_the_matrices_of_a_shard_put_the_volume_into_its_world(world, tmp_path):
    _, example = world
    matrices = {name: matrix.tolist() for name, matrix in zip(NAMES, example.xray.projection, strict=True)}
    path = write_yaml(tmp_path, {"projection": matrices, "grid": {"affine": example.case.affine.tolist()}})
    found = run(world, tmp_path, model="spider", geometry=path)
    assert np.array_equal(found.affine, example.case.affine)
    trained, _ = build_trained(load_checkpoint(world[0] / "spider" / "model.pt"))
    expected = trained.predict(example.xray, example.case.affine).ct_hu.astype(int)
    assert np.abs(voxels(found) - expected).max() <= 1


def test_larger_images_are_brought_to_the_trained_pixels(world, tmp_path, capsys):
    _, example = world
    images = {name: tmp_path / f"{name}.npy" for name in NAMES}
    for name, image in zip(NAMES, example.xray.image, strict=True):
        np.save(images[name], np.pad(np.kron(image, np.ones((4, 4))), ((8, 8), (20, 20))))
    path = write_yaml(tmp_path, CONE | {"pixel_mm": 1, "detector_px": [120, 160]})
    found = run(world, tmp_path, images, model="spider", geometry=path)
    assert "resampled to the trained pixels: 4 x 4 of its own per pixel" in capsys.readouterr().out
    expected = run(world, tmp_path / "b", model="spider")
    assert np.abs(voxels(found) - voxels(expected).astype(int)).mean() < 5


def test_every_format_and_intensity_meets_the_line_integrals(world, tmp_path, capsys):
    """16-bit transmission PNG with open field, MONOCHROME1 display DICOM: close to the same reconstruction."""
    folder, example = world
    pa, lat = example.xray.image
    counts = np.rint(60000 * np.exp(-pa)).astype(np.uint16)
    Image.fromarray(counts).save(tmp_path / "pa.png")
    options = {"model": "spider", "intensity": "transmission"}
    Image.fromarray(np.rint(60000 * np.exp(-lat)).astype(np.uint16)).save(tmp_path / "lat.png")
    images = {"PA": tmp_path / "pa.png", "LAT": tmp_path / "lat.png"}
    found = run(world, tmp_path / "a", images, **options, i0=60000.0)
    expected = voxels(run(world, tmp_path / "c", model="spider")).astype(int)
    assert np.abs(voxels(found) - expected).max() <= 20  # of 16 bits
    trained, _ = build_trained(load_checkpoint(folder / "spider" / "model.pt"))
    for number, (name, image) in enumerate(zip(NAMES, (pa, lat), strict=True)):
        level = float(trained.image_mean[number]), float(trained.image_scale[number])
        exact = (image - image.mean()) / image.std() * level[1] + level[0]
        np.save(tmp_path / f"{name}.npy", exact)
        low, high = image.min(), image.max()
        shown = np.rint(65535 * (high - image) / (high - low)).astype(np.uint16)
        write_dicom(tmp_path / f"{name}.dcm", shown, PhotometricInterpretation="MONOCHROME1")
        Image.fromarray(shown).save(tmp_path / f"{name}-dark.png")
    matched = voxels(run(world, tmp_path / "d", {name: tmp_path / f"{name}.npy" for name in NAMES}, model="spider"))
    dicom = run(world, tmp_path / "e", {name: tmp_path / f"{name}.dcm" for name in NAMES}, model="spider")
    dark = {name: tmp_path / f"{name}-dark.png" for name in NAMES}
    png = run(world, tmp_path / "f", dark, model="spider", inverted=True)
    for found in (dicom, png):
        assert np.abs(voxels(found) - matched.astype(int)).max() <= 2
    said = capsys.readouterr().out
    assert "DICOM 26 x 30, display image with bone bright, set to the training's mean and SD" in said
    assert "-log(I/I0), I0 = 60000 (given)" in said


@pytest.mark.parametrize(("runs_to", "flip"), [("LF", ""), ("RF", "u"), ("LH", "v"), ("RH", "uv")])
def test_a_dicom_that_says_how_it_lies_is_turned_to_the_geometry(runs_to, flip, world, tmp_path, capsys):
    folder, example = world
    shown = np.rint(example.xray.image[0] * 4000).astype(np.uint16)
    stored = np.flip(shown, [{"v": 0, "u": 1}[letter] for letter in flip]).copy()
    write_dicom(
        tmp_path / "pa.dcm", stored, PatientOrientation=list(runs_to), RescaleSlope="0.00025", RescaleIntercept="0"
    )
    images = {"PA": tmp_path / "pa.dcm", "LAT": folder / "LAT.npy"}
    found = run(world, tmp_path, images, model="spider", intensity="line-integral")
    said = capsys.readouterr().out
    assert said.count("PatientOrientation says that they run to") == len(flip)
    assert "PA: " in said and "taken as: patient's R at the left edge, L at the right, S at the top" in said
    expected = voxels(run(world, tmp_path / "b", model="spider")).astype(int)
    assert np.abs(voxels(found) - expected).max() <= 5


@pytest.mark.parametrize(("runs_to", "flip"), [("LI", ()), ("RI", (1,)), ("LS", (0,)), ("RS", (0, 1))])
def test_columns_are_turned_from_left_to_right_and_rows_upside_down(runs_to, flip, world):
    content = load_checkpoint(world[0] / "nearest" / "model.pt")
    placed = trained_geometry(content, build_trained(content)[1], "model.pt")
    right = world[1].xray.image[0].astype(float)
    found, _ = turned(Picture(np.flip(right, flip), "DICOM", runs_to=tuple(runs_to)), placed, 0)
    assert np.array_equal(found.values, right)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"PatientOrientation": ["P", "F"]}, r"view PA runs to P and I .*expects L and I. Swap or turn the images"),
        ({"ViewPosition": "LL"}, "view PA is a DICOM of ViewPosition LL. Swap the images?"),
    ],
)
def test_a_dicom_of_another_view_is_refused(tags, said, world, tmp_path):
    folder, example = world
    write_dicom(tmp_path / "pa.dcm", np.rint(example.xray.image[0] * 4000).astype(np.uint16), **tags)
    with pytest.raises(UserError, match=said):
        run(world, tmp_path, {"PA": tmp_path / "pa.dcm", "LAT": folder / "LAT.npy"})
    assert not (tmp_path / "ct.nii.gz").exists()


def command(world, out, *arguments, model="nearest"):
    folder, _ = world
    arguments = ("--checkpoint", folder / model / "model.pt", "--device", "cpu", "--out", out, *arguments)
    return main(["reconstruct", *map(str, arguments)])


def test_by_command(world, tmp_path, capsys):
    folder, _ = world
    out = tmp_path / "anna.nii.gz"
    assert command(world, out, "--pa", folder / "PA.npy", "--image", f"LAT={folder / 'LAT.npy'}") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["anna-label.nii.gz", "anna-labels.json", "anna.nii.gz"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].split() == ["view", "relative", "RMS", "correlation", "shift", "u,", "v", "(px)"]
    assert [line.split()[0] for line in lines[-2:]] == ["PA", "LAT"] and not any("WARNING" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--pa", "PA.npy"], "no image for view LAT; the model was trained on PA, LAT and needs all of them"),
        (
            ["--pa", "PA.npy", "--image", "AP=LAT.npy"],
            "an image is given for view AP; the model was trained on PA, LAT",
        ),
        (["--pa", "PA.npy", "--image", "PA=LAT.npy"], "view PA has 2 images; expected one"),
        (["--image", "LAT.npy"], "--image 'LAT.npy'; expected VIEW=FILE"),
        ([], "--shards and images: neither given; expected one of them"),
        (["--pa", "PA.npy", "--shards", "PA.npy"], "--shards and images: both given"),
        (["--shards", "PA.npy", "--inverted"], "--inverted with --shards"),
        (["--pa", "PA.npy", "--lat", "LAT.npy", "--simulator", "cone"], "--simulator with images"),
        (["--pa", "PA.npy", "--lat", "no.npy"], "no.npy: cannot be read"),
        (["--pa", "PA.npy", "--lat", "LAT.npy", "--geometry", "no.yaml"], "no.yaml: cannot be read"),
        (["--pa", "PA.npy", "--lat", "LAT.npy", "--intensity", "display"], "model nearest keeps no mean and SD"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(arguments, said, world, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(world[0])
    assert command(world, tmp_path / "ct.nii.gz", *arguments) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("ERROR: ") and said in error
    assert not list(tmp_path.iterdir())


def test_an_image_that_shows_next_to_nothing_of_the_trained_detector_is_refused(world, tmp_path):
    geometry = write_yaml(tmp_path, CONE | {"pixel_mm": 0.2})
    with pytest.raises(UserError, match=r"view PA covers \d% of what the trained detector shows; expected 10% or more"):
        run(world, tmp_path / "ct.nii.gz", geometry=geometry)


def test_out_must_be_one_nifti_file(world, tmp_path):
    with pytest.raises(UserError, match=r"--out .*ct: expected a file that ends in .nii.gz"):
        beside(tmp_path / "ct")
    assert [path.name for path in beside(tmp_path / "ct.nii.gz")] == ["label.nii.gz", "labels.json"]


def test_a_checkpoint_of_before_geometries_were_kept_is_refused(world, tmp_path):
    content = load_checkpoint(world[0] / "nearest" / "model.pt")
    del content["geometry"]
    save_checkpoint(tmp_path / "old.pt", {key: content[key] for key in content if not key.startswith("schema")})
    with pytest.raises(UserError, match="old.pt: this checkpoint does not hold the geometry"):
        reconstruct_images(
            checkpoint=tmp_path / "old.pt",
            images={name: world[0] / f"{name}.npy" for name in NAMES},
            out=tmp_path / "ct.nii.gz",
            device="cpu",
        )


@pytest.mark.parametrize(
    ("spoil", "geometry", "said"),
    [
        (lambda pa, lat: (np.fliplr(pa), lat), {}, "PA mirrored left to right"),
        (lambda pa, lat: (pa, np.fliplr(lat)), {}, "LAT mirrored left to right"),
        (lambda pa, lat: (np.flipud(pa), np.flipud(lat)), {}, "all upside down"),
        (lambda pa, lat: (lat, pa), {}, "PA and LAT exchanged"),
        (lambda pa, lat: (pa, lat), {"pixel_mm": 4.4}, "pixels 10 % smaller"),
        (lambda pa, lat: (pa, lat), {"pixel_mm": 3.63}, "pixels 10 % larger"),
    ],
    ids=["pa mirrored", "lat mirrored", "upside down", "exchanged", "too large", "too small"],
)
def test_a_common_mistake_is_named(spoil, geometry, said, world, tmp_path, capsys):
    """With a model that knows the patient: the nearest case of its training."""
    _, example = world
    images = {name: tmp_path / f"{name}.npy" for name in NAMES}
    for name, image in zip(NAMES, spoil(*example.xray.image), strict=True):
        np.save(images[name], image)
    run(world, tmp_path, images, geometry=write_yaml(tmp_path, CONE | geometry))
    warned = capsys.readouterr().err
    assert f"WARNING: the images fit better with {said}: mean relative RMS" in warned


class Knowing(nn.Module):
    """A model that answers with the CT it was given."""

    def __init__(self, ct_hu):
        super().__init__()
        self.ct_hu = ct_hu

    def prepare(self, cases): ...

    def predict(self, xray, affine):
        return Prediction(self.ct_hu, None)


@pytest.mark.parametrize(("water", "rms"), [(None, 0.0), (0.0206, 0.5)])
def test_the_scale_of_xrays_is_judged_only_where_water_is_known(water, rms, world):
    """Line integrals half as large as they should be: right up to a factor, wrong by half of their RMS about 0."""
    example = world[1]
    content = load_checkpoint(world[0] / "nearest" / "model.pt")
    trained = trained_geometry(content, build_trained(content)[1], "model.pt")
    attrs = {key: value for key, value in trained.attrs.items() if key != "mu_water_per_mm"}
    placed = replace(trained, attrs=attrs | ({"mu_water_per_mm": water} if water else {}))
    inputs = [Input(image.astype(float) / 2, None) for image in example.xray.image]
    _, fits = attempt(Knowing(example.case.ct_hu), inputs, placed, trained)
    for fit, image in zip(fits, example.xray.image, strict=True):
        expected = rms * 2 * np.sqrt((image.astype(float) ** 2).mean()) / image.std()
        assert fit.relative_rms == pytest.approx(expected, abs=0.03)


def test_images_that_the_model_cannot_explain_are_told(world, tmp_path, capsys):
    _, example = world
    images = {name: tmp_path / f"{name}.npy" for name in NAMES}
    for name, image in zip(NAMES, example.xray.image, strict=True):
        np.save(images[name], image.max() - image)
    run(world, tmp_path, images)
    warned = capsys.readouterr().err
    assert all(f"does not show what the image of view {name} shows: relative RMS" in warned for name in NAMES)


def test_right_images_raise_no_warning(world, tmp_path, capsys):
    run(world, tmp_path)
    captured = capsys.readouterr()
    assert "WARNING" not in captured.err
    rows = [line.split() for line in captured.out.splitlines()[-2:]]
    assert [row[0] for row in rows] == ["PA", "LAT"]
    assert all(float(row[1]) < 0.02 and float(row[2]) > 0.999 for row in rows)
