"""A trained hash grid reconstructs the same with every backend, and where that of its training is not present."""

import re
import shutil
import sys

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.xr2ct.cohort import TINY, WINDOW, write_cohort
from tests.xr2ct.test_encoding_backends import HERE, NEEDS_KERNELS, place_of
from xr2ct.__main__ import main
from xr2ct.cases import Cases
from xr2ct.checkpoint import load_checkpoint, save_checkpoint
from xr2ct.encoding import backend_of_trained
from xr2ct.errors import UserError
from xr2ct.reconstruct import reconstruct
from xr2ct.shards import open_shards
from xr2ct.train import train

BY_POSITION = TINY | {"steps": 40, "table_rate": 5}  # enough for the table to decide a part of what comes out
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def train_model(folder, name, settings, model="spider"):
    shards, out = [folder / "train-0.h5"], folder / name
    train(model=model, simulator="parallel", shards=shards, out=out, settings=settings, window=WINDOW, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cohort, the X-rays of its test case as images, a network trained with `reference`, a model without a hash grid."""
    made = tmp_path_factory.mktemp("trained")
    write_cohort(made, 2)
    shard = write_cohort(made, 1, split="test", seed=1)
    for name, image in zip(("PA", "LAT"), Cases(open_shards([shard]), "parallel")[0].xray.image, strict=True):
        np.save(made / f"{name}.npy", image)
    train_model(made, "spider", BY_POSITION | {"backend": "reference"})
    train_model(made, "mean", {}, model="mean")
    return made


@pytest.fixture
def elsewhere(folder, tmp_path, monkeypatch):
    """The checkpoint as if trained with `triton`, on a machine without."""
    monkeypatch.setitem(sys.modules, "triton", None)
    content = load_checkpoint(folder / "spider" / "model.pt")
    content["identity"]["settings"]["backend"] = "triton"
    save_checkpoint(tmp_path / "elsewhere.pt", {key: content[key] for key in content if not key.startswith("schema")})
    return tmp_path / "elsewhere.pt"


def command(folder, out, *options, checkpoint=None, images=False):
    """`xr2ct reconstruct` with the network from the shard, or from the images of the same case."""
    given = ["--pa", folder / "PA.npy", "--lat", folder / "LAT.npy"] if images else ["--shards", folder / "test-1.h5"]
    checkpoint = checkpoint or folder / "spider" / "model.pt"
    words = ["reconstruct", "--checkpoint", checkpoint, "--device", "cpu", "--out", out, *given, *options]
    return main([str(word) for word in words])


def volumes(case):
    """CT and label (z, y, x) of a folder."""
    return [np.asanyarray(nib.load(case / f"{name}.nii.gz").dataobj).T.astype(int) for name in ("ct", "label")]


def assert_same(found, expected, hu=1, labels=0.0):
    assert np.ptp(expected[0]) > 100 and len(np.unique(expected[1])) > 1
    assert np.abs(found[0] - expected[0]).max() <= hu
    assert (found[1] != expected[1]).mean() <= labels


@pytest.mark.parametrize("backend", HERE)
def test_every_backend_reconstructs_what_the_reference_does(backend, folder, tmp_path):
    for name in ("reference", backend):
        reconstruct(
            checkpoint=folder / "spider" / "model.pt",
            shards=[folder / "test-1.h5"],
            out=tmp_path / name,
            backend=name,
            device=place_of(backend),
        )
    assert_same(volumes(tmp_path / backend / "test0"), volumes(tmp_path / "reference" / "test0"))


@NEEDS_KERNELS
def test_without_a_compiler_training_and_reconstruction_give_what_they_give_with_one(folder, tmp_path, monkeypatch):
    shutil.copy(folder / "train-0.h5", tmp_path)
    for name, native in (("with", "1"), ("without", "0")):
        monkeypatch.setenv("XR2CT_NATIVE", native)
        train_model(tmp_path, name, BY_POSITION)
        assert command(folder, tmp_path / name, checkpoint=tmp_path / name / "model.pt") == 0
    assert_same(volumes(tmp_path / "without" / "test0"), volumes(tmp_path / "with" / "test0"), hu=5, labels=0.001)


def watched_backends(monkeypatch):
    """The names of the backends that grids are made with from now on."""
    made, grid = [], sys.modules["xr2ct.models.spider"].HashGrid
    note = lambda levels, features, backend: made.append(backend) or grid(levels, features, backend)  # noqa: E731
    monkeypatch.setattr("xr2ct.models.spider.HashGrid", note)
    return made


@pytest.mark.parametrize("images", [False, True], ids=["shards", "images"])
def test_the_backend_asked_for_computes(images, folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "ct.nii.gz" if images else tmp_path
    made = watched_backends(monkeypatch)
    for options in ([], ["--backend", "lattice"], ["--backend", "auto"]):
        assert command(folder, out, *options, images=images) == 0
    assert made == ["reference", "lattice", "auto"]
    assert "Note" not in capsys.readouterr().out


@pytest.mark.parametrize("images", [False, True], ids=["shards", "images"])
def test_where_the_backend_of_the_training_is_missing_another_one_is_taken_and_named_once(
    images, elsewhere, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("XR2CT_NATIVE", "0")
    made = watched_backends(monkeypatch)
    for name, checkpoint in (("here", None), ("there", elsewhere)):
        out = tmp_path / name / "test0"
        out.mkdir(parents=True)
        assert command(folder, out / "ct.nii.gz" if images else out.parent, checkpoint=checkpoint, images=images) == 0
    assert made == ["reference", "lattice"]
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "Note" in line]
    assert said.startswith("Note: hash grid backend 'triton' of the training is not present here: the package triton")
    assert said.endswith("Taking 'lattice'.")
    assert_same(volumes(tmp_path / "there" / "test0"), volumes(tmp_path / "here" / "test0"))


@pytest.mark.parametrize("images", [False, True], ids=["shards", "images"])
@pytest.mark.parametrize(
    ("model", "backend", "said"),
    [
        ("spider", "latice", r"'latice' is not known; .* mean 'lattice'\? Present here: auto, reference, lattice\.$"),
        ("spider", "triton", "'triton' is not present here: the package triton"),
        (
            "spider",
            "native",
            r"XR2CT_NATIVE=0; expected one of: auto, reference, lattice\. They.* --backend of `xr2ct reconstruct`",
        ),
        ("mean", "lattice", "--backend lattice: model mean has no hash grid. Leave it out"),
    ],
)
def test_a_backend_that_cannot_be_had_is_one_line_and_exit_2(
    images, model, backend, said, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("XR2CT_NATIVE", "0")
    for package in ("triton", "tinycudann"):
        monkeypatch.setitem(sys.modules, package, None)
    out = tmp_path / ("ct.nii.gz" if images else "run")
    assert command(folder, out, "--backend", backend, checkpoint=folder / model / "model.pt", images=images) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert re.search(f"^ERROR: .*{said}", error)
    assert not list(tmp_path.iterdir())


def test_a_backend_of_a_later_version_is_none_that_is_present(capsys):
    assert backend_of_trained(None, "warp", 8, CPU) in ("native", "lattice")
    assert "'warp' of the training is not present here: this version does not know it" in capsys.readouterr().out


@NEEDS_KERNELS
def test_a_backend_of_another_device_is_not_present_there(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert backend_of_trained(None, "native", 8, CPU) == "native"
    assert not capsys.readouterr().out
    assert backend_of_trained(None, "native", 8, CUDA) == "reference"
    assert "'native' of the training is not present here: it computes on cpu only. Taking 'reference'." in (
        capsys.readouterr().out
    )
    with pytest.raises(
        UserError, match=r"'native' .* it computes on cpu only; expected one of: auto, reference, lattice"
    ):
        backend_of_trained("native", "reference", 8, CUDA)
