"""`python -m pipeline project` as people type it: one file, every option, every mistake in words."""

import gzip
import json

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from pipeline.__main__ import build_parser, main
from pipeline.commands.project import PRESETS, RECORD_DETECTOR, leaves_of
from pipeline.config import schema
from pipeline.simulators import DEFAULTS, make_simulator
from pipeline.xray_file import load_xray
from tests.cohorts import write_ct, write_nifti
from tests.phantoms import labelled_phantom
from tests.pipeline.read_cases import AFFINE, SENTINEL, ct_phantom
from tests.pipeline.test_read_dicom import save, series
from tests.pipeline.test_read_nrrd import nrrd_bytes

SMALL = ["--detector-px", "40", "48"]


@pytest.fixture
def ct(tmp_path):
    """A little CT of 75 x 78 x 88 mm whose x axis runs to the patient's left."""
    write_ct(tmp_path, "ct")
    return tmp_path / "ct.nii.gz"


def project(*arguments):
    return main(["project", *map(str, arguments)])


def test_the_issues_command_writes_xrays_pictures_and_says_where(ct, tmp_path, capsys):
    out = tmp_path / "made" / "xr.h5"
    assert project("--volume", ct, "--views", "PA,LAT", "--simulator", "cone", "--out", out, "--png", "--dicom") == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == f"X-rays: {out}"
    assert "detector: 256 x 256 pixels of" in said.err and "fitted to the volume's shadow" in said.err
    assert "simulating PA, LAT: cone beam, monoenergetic, joseph" in said.err
    xray = load_xray(out)
    assert xray.views == ("PA", "LAT") and xray.image.shape == (2, 256, 256)
    assert xray.attributes["sdd_mm"] == 1000.0 and xray.attributes["sod_mm"] == 700.0
    names = {path.name for path in out.parent.iterdir()}
    assert names == {"xr.h5", "xr_PA.png", "xr_LAT.png", "xr_PA.dcm", "xr_LAT.dcm"}
    picture = np.asarray(Image.open(out.parent / "xr_PA.png"))
    assert picture.dtype == np.uint8 and picture.shape == (256, 256)
    order = np.argsort(xray.image[0].ravel())
    assert (np.diff(picture.ravel()[order].astype(int)) >= 0).all() and picture.min() == 0 and picture.max() == 255
    step = np.linalg.norm(xray.detector_mm[0, 1])
    assert float(pydicom.dcmread(out.parent / "xr_PA.dcm").ImagerPixelSpacing[0]) == pytest.approx(step)


def test_the_fitted_detector_holds_the_shadow_and_no_more(ct, tmp_path):
    for simulator in ("parallel", "cone"):
        assert project("--volume", ct, "--simulator", simulator, "--out", tmp_path / "x.h5") == 0
        image = load_xray(tmp_path / "x.h5").image
        assert (image[:, [0, -1]] < 0.01).all() and (image[:, :, [0, -1]] < 0.01).all()
        rows = np.flatnonzero(image.max(axis=(0, 2)) > 0.1)
        assert rows[-1] - rows[0] > 0.9 * 256


def test_mass_and_centre_of_mass_are_those_of_the_file(ct, tmp_path):
    """Parallel rays: sum of image times pixel area = sum of mu times voxel volume; centres of mass project linearly.

    mu = 0.02059 / mm * (1 + HU / 1000) at 60 keV (NIST water); HU and affine by nibabel from the file itself.
    """
    views = ["--views", "PA,LAT,oblique:-35:20", "--detector-px", "80", "96"]
    assert project("--volume", ct, "--backend", "reference", *views, "--out", tmp_path / "x.h5") == 0
    file = nib.load(ct)
    mu = 0.02059 * np.maximum(0.0, 1 + np.asarray(file.dataobj, float) / 1000)
    index = np.indices(mu.shape).reshape(3, -1)
    world = file.affine @ np.append((index * mu.ravel()).sum(axis=1) / mu.sum(), 1.0)
    xray = load_xray(tmp_path / "x.h5")
    assert xray.views == ("PA", "LAT", "oblique")
    rows, columns = np.indices((80, 96))
    for image, projection, detector in zip(xray.image.astype(float), xray.projection, xray.detector_mm, strict=True):
        area = np.linalg.norm(detector[1]) * np.linalg.norm(detector[2])
        assert image.sum() * area == pytest.approx(mu.sum() * 2.5 * 3 * 4, rel=5e-3)
        u, v, _ = projection @ world
        found = ((image * columns).sum() / image.sum(), (image * rows).sum() / image.sum())
        np.testing.assert_allclose(found, (u, v), atol=0.05)


def test_every_format_gives_the_same_xrays_and_no_name_comes_through(tmp_path):
    """One phantom as NIfTI, as NRRD in the LPS frame and as a DICOM folder, the last two with a patient's name in them."""
    write_nifti(tmp_path / "a.nii.gz", ct_phantom().T, AFFINE)
    (tmp_path / "a.nrrd").write_bytes(nrrd_bytes())
    save(tmp_path / "series", series())
    found = []
    for number, source in enumerate(("a.nii.gz", "a.nrrd", "series")):
        out = tmp_path / f"out{number}" / "xr.h5"
        assert project("--volume", tmp_path / source, "--out", out, "--png", "--dicom", *SMALL) == 0
        assert all(SENTINEL.encode() not in path.read_bytes() for path in out.parent.iterdir())
        found.append(load_xray(out))
    for other in found[1:]:
        np.testing.assert_allclose(other.image, found[0].image, atol=1e-5)
        np.testing.assert_allclose(other.projection, found[0].projection, atol=1e-6)


def test_every_leaf_has_an_option_and_the_defaults_are_those_of_the_config():
    rules = schema()["properties"]["simulators"]["additionalProperties"]["properties"]
    given = {
        **{"beam": "cone", "backend": "siddon", "physics": "realistic", "spectrum": "60KV_AL35", "kvp": 60.0},
        **{"filter_mm_al": 3.5, "materials": "smooth-v1", "scatter": "kernel", "grid": "none", "views": ("AP",)},
        **{"detector_px": [7, 9], "pixel_mm": 0.5, "sdd_mm": 900.0, "sod_mm": 600.0, "offset_mm": [-3.0, 4.0]},
        **{"roll_deg": -5.0, "energy_kev": 70.0, "photons": 50.0, "psf_px": 0.25, "scatter_photons": 20_000},
    }
    assert set(given) == set(rules)
    words = []
    for name, value in given.items():
        words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list | tuple) else [value])]
    assert leaves_of(build_parser().parse_args(["project", "r", "--out", "o", *words])) == given

    bare = leaves_of(build_parser().parse_args(["project", "r", "--out", "o"]))
    defaults = {name: rule["default"] for name, rule in rules.items() if "default" in rule}
    simulator = make_simulator({**RECORD_DETECTOR, **bare})
    assert simulator == make_simulator({"beam": "parallel", **defaults})
    assert all(make_simulator({**RECORD_DETECTOR, **DEFAULTS, **preset}) for preset in PRESETS.values())
    assert make_simulator({**RECORD_DETECTOR, **DEFAULTS, **PRESETS["realistic"]}).physics == "realistic"


def test_options_override_the_preset(ct, tmp_path):
    options = ["--sdd-mm", "1800", "--sod-mm", "1500", "--roll-deg", "90", "--offset-mm", "-8", "0", "--pixel-mm", "3"]
    assert project("--volume", ct, "--simulator", "cone", *options, *SMALL, "--out", tmp_path / "x.h5") == 0
    xray = load_xray(tmp_path / "x.h5")
    assert xray.attributes["sdd_mm"] == 1800.0
    np.testing.assert_allclose(xray.detector_mm[0, 2], [0, 0, -3], atol=1e-9)  # u runs to the feet
    centre = xray.detector_mm[0, 0] + 19.5 * xray.detector_mm[0, 1] + 23.5 * xray.detector_mm[0, 2]
    np.testing.assert_allclose(centre[2] - xray.source_mm[0, 2], 8.0)


def test_views_can_be_names_angles_and_json():
    parse = build_parser().parse_args
    views = ["PA,LAO:45", "up:0:30", '{"name": "any", "alpha_deg": {"uniform": [-30, 30]}}', "RLAT"]
    assert leaves_of(parse(["project", "--out", "o", "--views", *views]))["views"] == (
        "PA",
        {"name": "LAO", "alpha_deg": 45.0, "beta_deg": 0.0},
        {"name": "up", "alpha_deg": 0.0, "beta_deg": 30.0},
        {"name": "any", "alpha_deg": {"uniform": [-30, 30]}},
        "RLAT",
    )


def test_a_random_view_follows_seed_and_file_name_into_the_matrices(ct, tmp_path):
    view = json.dumps({"name": "any", "alpha_deg": {"uniform": [-90, 90]}})
    directions = []
    for seed in (1, 2, 1):
        assert project("--volume", ct, "--views", view, "--seed", seed, *SMALL, "--out", tmp_path / "x.h5") == 0
        xray = load_xray(tmp_path / "x.h5")
        assert xray.views == ("any",)
        directions.append(tuple(xray.source_mm[0]))
    assert directions[0] == directions[2] != directions[1]


def test_windows_and_local_contrast_are_of_the_pictures_only(ct, tmp_path):
    common = ["--volume", ct, "--views", "PA", *SMALL, "--png"]
    assert project(*common, "--window", "0", "1.5", "--out", tmp_path / "a.h5") == 0
    assert project(*common, "--clahe", "--out", tmp_path / "b.h5") == 0
    image = load_xray(tmp_path / "a.h5").image[0]
    np.testing.assert_array_equal(image, load_xray(tmp_path / "b.h5").image[0])
    shown = np.asarray(Image.open(tmp_path / "a_PA.png"))
    np.testing.assert_array_equal(shown, np.rint(np.clip(image.astype(float) / 1.5, 0, 1) * 255))
    assert (np.asarray(Image.open(tmp_path / "b_PA.png")) != shown).any()


def test_a_record_of_the_workflow_works_as_before_and_takes_pictures_too(tmp_path):
    row = write_ct(tmp_path, "a")
    record = "{}/a/case.json".format
    for step in (
        ["fetch", "--case", "a", "--ct", tmp_path / row["ct"], "--label", tmp_path / row["label"], "--out"],
        ["ingest", record(tmp_path / "fetch"), "--cube", "24", "--spacing-mm", "4", "--out"],
        ["label", record(tmp_path / "ingest"), "--structures", "heart", "--out"],
    ):
        assert main([*map(str, step), str(tmp_path / step[0] / "a")]) == 0
    out = tmp_path / "project/cone/a.h5"
    assert project(record(tmp_path / "label"), "--beam", "cone", "--pixel-mm", "2", "--out", out, "--png") == 0
    xray = load_xray(out)
    assert xray.image.shape == (2, 128, 128) and xray.attributes["beam"] == "cone"
    assert np.linalg.norm(xray.detector_mm[0, 1]) == pytest.approx(2.0)
    assert (out.parent / "a_LAT.png").is_file()


def test_help_teaches_with_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["project", "--help"])
    text = capsys.readouterr().out
    assert "project --volume ct.nii.gz --views PA,LAT --simulator realistic --kvp 90 --out xr.h5 --png" in text
    assert "Black is the 1st and white the 99.5th percentile" in text


def spoiled(folder, name):
    """A file that is no CT: what is wrong with it is its name."""
    ct, _ = labelled_phantom((22, 26, 30))
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    path = folder / f"{name}.nii.gz"
    if name == "nan":
        write_nifti(path, np.full(ct.shape, np.nan, np.float32), affine)
    elif name == "a few nan":
        holes = ct.astype(np.float32)
        holes[3, 3, 3], holes[4, 4, 4] = np.nan, np.inf
        write_nifti(path, holes, affine)
    elif name == "four":
        path.write_bytes(nib.Nifti1Image(np.stack([ct, ct], axis=3), affine).to_bytes())
    elif name == "one":
        write_nifti(path, ct[:1, :1, :1], affine)
    elif name == "complex":
        write_nifti(path, ct.astype(np.complex64), affine)
    elif name == "singular":
        image = nib.Nifti1Image(ct.T, affine)
        image.header.set_sform(np.diag([3.0, 3.0, 0.0, 1.0]), 1)
        image.header.set_qform(None, 0)
        path.write_bytes(image.header.binaryblock + bytes(4) + ct.tobytes())
    elif name == "empty":
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nan", "of the voxels are NaN or infinite, expected"),
        ("a few nan", "voxels that are NaN or infinite (E_NONFINITE); expected finite HU"),
        ("four", "has the shape 22 x 26 x 30 x 2, expected one 3-D volume"),
        ("one", "has the shape 1 x 1 x 1, expected one 3-D volume"),
        ("complex", "of type complex64, expected"),
        ("singular", "the voxels measure 3 x 3 x 0 mm, expected 0.05 to 30 mm"),
        ("empty", "the file is neither NIfTI nor NRRD"),
        ("missing", "the file or folder does not exist"),
    ],
)
def test_a_file_that_is_no_ct_ends_in_words(tmp_path, capsys, name, words):
    path = spoiled(tmp_path, name)
    assert project("--volume", path, "--out", tmp_path / "x.h5") == 2
    said = capsys.readouterr().err
    assert words in said and f"ERROR: {path}: " in said and "Traceback" not in said
    assert "Give a CT in HU" in said or "Replace them" in said
    assert not (tmp_path / "x.h5").exists()


def test_what_is_noticed_about_a_ct_is_said(tmp_path, capsys):
    ct, _ = labelled_phantom((22, 26, 30))
    image = nib.Nifti1Image(ct.T, np.diag([3.0, 3.0, 3.0, 1.0]))
    image.header.set_qform(np.diag([-3.0, 3.0, 3.0, 1.0]), 1)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(image.to_bytes()))
    assert project("--volume", path, "--detector-px", "16", "16", "--out", tmp_path / "x.h5") == 0
    assert "noticed: QS_MISMATCH (qform and sform differ, the sform counts)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--simulator", "realistic", "--spectrum", "90KV"],
            "spectrum '90KV' is not known; expected one of: 60KV_AL35",
        ),
        (["--simulator", "realistic", "--kvp", "75"], "kvp 75 without filter_mm_al"),
        (
            ["--simulator", "realistic", "--kvp", "90", "--spectrum", "60KV_AL35"],
            "spectrum '60KV_AL35' beside kvp 90; expected one of the two. Remove the other one.",
        ),
        (["--kvp", "90"], "kvp 90.0 has no meaning for physics 'monoenergetic'"),
        (["--photons", "-5"], "photons is -5; expected at least 0"),
        (["--pixel-mm", "0"], "pixel_mm is 0; expected more than 0"),
        (["--detector-px", "0", "4"], "detector_px is [0, 4]; expected two whole numbers"),
        (
            ["--views", '{"name": "a", "alpha_deg": "30"}'],
            "view a: an angle is '30'; expected a finite number of degrees",
        ),
        (["--views", "a:thirty"], "view 'a:thirty'; expected name:alpha or name:alpha:beta in degrees"),
        (["--views", "a:1:2:3"], "expected name:alpha or name:alpha:beta"),
        (["--views", "a:nan"], "view a: an angle is nan"),
        (["--views", '{"name": '], "is not JSON"),
        (["--views", ","], "views is (); expected a list of at least one view"),
        (["--views", "PA,PB"], "view 'PB' is not known; expected one of: PA, LAT, AP, RLAT"),
        (["--simulator", "cone", "--sod-mm", "1000"], "sod_mm 1000 and sdd_mm 1000 put the patient behind the tube"),
        (["--simulator", "cone", "--sod-mm", "20"], "the tube stands inside or in front of the volume"),
        (["--simulator", "cone", "--sod-mm", "980"], "the detector stands inside the volume"),
        (["--backend", "jospeh"], "backend 'jospeh' cannot simulate a parallel beam"),
        (["--pixel-mm", "1", *SMALL, "--offset-mm", "500", "0"], "the volume's shadow misses the detector"),
        (["--roll-deg", "nan"], "roll_deg is nan; expected a finite number"),
        (["--png", "--window", "2", "1", *SMALL], "--window 2 1; expected two line integrals, the lower one first"),
        (["--seed", "-1"], "--seed -1; expected 0 or more"),
        (["case.json"], "project was given both case.json and"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value)[:40],
)
def test_a_wrong_option_ends_in_words(ct, tmp_path, capsys, options, words):
    assert project("--volume", ct, *options, "--out", tmp_path / "x.h5") == 2
    said = capsys.readouterr().err
    assert words in said and "ERROR: " in said and "Traceback" not in said


def test_without_any_input_the_help_is_named(tmp_path, capsys):
    assert project("--out", tmp_path / "x.h5") == 2
    assert "project was given neither; expected a case.json or --volume CT" in capsys.readouterr().err


def test_the_ct_is_never_overwritten(tmp_path, capsys):
    write_ct(tmp_path, "a")
    before = (tmp_path / "a.nii.gz").read_bytes()
    assert main(["project", "--volume", str(tmp_path / "a.nii.gz"), *SMALL, "--out", str(tmp_path / "a.nii.gz")]) == 2
    assert "would overwrite or lie inside the input" in capsys.readouterr().err
    assert main(["project", "--volume", str(tmp_path / "a.nii.gz"), *SMALL, "--out", str(tmp_path)]) == 2
    assert (tmp_path / "a.nii.gz").read_bytes() == before
