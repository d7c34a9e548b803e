"""TotalSegmentator as a judge: what it is given, what becomes of its classes, and once the real package."""

import importlib
import os
import sys

import numpy as np
import pytest

from tests.phantoms import AFFINE, labelled_phantom
from xr2ct.judge.registry import open_judge

CPU = pytest.importorskip("torch").device("cpu")
STRUCTURES = ("background", "mandible", "lung_left", "heart", "kidney")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of TotalSegmentator's name where Python finds it first: kidneys above 160 HU, heart below -490 HU."""
    names = ("", ".config", ".map_to_binary", ".python_api")
    sources = {
        "__init__": "",
        "config": "settings, get_config_key = {}, lambda name: settings.get(name)\n"
        "def setup_totalseg(): settings['send_usage_stats'] = True\n"
        "def set_config_key(name, value): settings[name] = value\n",
        "map_to_binary": "names = 'kidney_right kidney_left heart atrial_appendage_left lung_upper_lobe_left'.split()\n"
        "class_map = {'total': dict(enumerate(names, start=2))}\n",
        "python_api": "import os, nibabel as nib, numpy as np\n"
        "from totalsegmentator.config import settings\n"
        "asked = []\n"
        "def totalsegmentator(image, output, **options):\n"
        "    os.environ.update({f'nnUNet_{name}': 'weights' for name in ('raw', 'preprocessed', 'results')})\n"
        "    assert not settings['send_usage_stats'] and output is None\n"
        "    asked.append(options)\n"
        "    hu, left = image.get_fdata(), np.arange(image.shape[0])[:, None, None] < 14\n"
        "    ids = np.select([(hu > 160) & left, hu > 160, hu < -490], [3, 2, 4])\n"
        "    return nib.Nifti1Image(ids.astype('u1'), image.affine)\n",
    }
    for name, text in sources.items():
        path = tmp_path / "site" / "totalsegmentator" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for number in (291, 292, 293, 294, 295, 297):
        (tmp_path / "weights" / f"Dataset{number}_TotalSegmentator").mkdir(parents=True)
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "weights"))
    monkeypatch.syspath_prepend(tmp_path / "site")

    def forget():
        for name in names:
            sys.modules.pop(f"totalsegmentator{name}", None)
        importlib.invalidate_caches()

    forget()
    yield
    forget()


@pytest.mark.parametrize("fast", [True, False])
def test_its_classes_come_back_as_structures_on_the_same_voxels(fast, package, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", "mine")
    monkeypatch.delenv("nnUNet_results", raising=False)
    name = "totalsegmentator-fast" if fast else "totalsegmentator"
    judge = open_judge(name, STRUCTURES, CPU)
    assert judge.kind == name and judge.structures == ("background", "heart", "kidney")  # half a lung is none
    ct, _ = labelled_phantom()
    found = judge.segment(ct, AFFINE)
    assert found.dtype == np.uint8 and found.shape == ct.shape
    np.testing.assert_array_equal(found == 1, ct < -490)
    np.testing.assert_array_equal(found == 2, ct > 160)
    options = {"ml": True, "fast": fast, "device": "cpu", "quiet": True, "nr_thr_saving": 1}
    assert importlib.import_module("totalsegmentator.python_api").asked == [options]
    assert {key: value for key, value in os.environ.items() if key.startswith("nnUNet_")} == {"nnUNet_raw": "mine"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_real_package_with_a_network_of_its_layout(tmp_path, monkeypatch):
    pytest.importorskip("totalsegmentator")
    from tests.pipeline.test_totalsegmentator import write_network

    monkeypatch.delenv("TOTALSEG_WEIGHTS_PATH", raising=False)
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path))
    write_network(tmp_path)
    judge = open_judge("totalsegmentator-fast", ("background", "lung_left", "heart"), CPU)
    assert judge.structures == ("background", "lung_left", "heart")
    ct, label = labelled_phantom((32, 36, 40))
    ct[label == 2] = 20
    found = judge.segment(ct, AFFINE)
    ball = label == 1
    assert 2 * ((found == 2) & ball).sum() / ((found == 2).sum() + ball.sum()) > 0.9
    assert not any(name.startswith("nnUNet_") for name in os.environ)
