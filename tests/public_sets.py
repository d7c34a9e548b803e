"""What the miniatures of the public data sets hold, and their way through the stages' own functions and commands."""

import json

import nibabel as nib
import numpy as np

from pipeline.__main__ import main
from pipeline.fetch import fetch_case
from pipeline.sources import get_edition
from pipeline.sources.contract import write_index
from pipeline.sources.shelf import Shelf
from tests.miniatures import hips, packed, phantom, write_tar

SMALL = "Totalsegmentator_dataset_small_v201.zip"
TOTAL = {"s0000": "train", "s0011": "val", "s0058": "test"}
VERSE = {
    "dataset-verse20training.zip": (
        "dataset-01training",
        {"sub-gl003_dir-ax": 1, "sub-verse401_split-verse253": 2, "sub-verse401_split-verse254": 3},
    ),
    "dataset-verse20validation.zip": ("dataset-02validation", {"sub-verse500_dir-ax": 4, "sub-verse500_dir-sag": 5}),
    "dataset-verse20test.zip": ("dataset-03test", {"sub-gl108_dir-ax": 6, "sub-verse112": 14, "sub-gl003_dir-ax": 15}),
    "dataset-verse19training.zip": ("dataset-verse19training", {"sub-verse004": 7, "sub-verse112": 8}),
    "dataset-verse19validation.zip": ("dataset-verse19validation", {"sub-verse253": 9, "sub-verse020": 6}),
    "dataset-verse19test.zip": ("dataset-verse19test", {"sub-verse401_split-verse255": 11, "sub-verse037": 12}),
}  # fmt: skip


def pelvis_archives(published, *, rights=(2, 3)):
    data6, mask6, data7, mask7 = {}, {}, {}, {}
    for number, right in enumerate(rights, start=1):
        ct, ids = hips(number, right=right)
        data6[f"CTPelvic1K_dataset6_data/dataset6_CLINIC_000{number}_data.nii.gz"] = packed(ct)
        mask6[f"ipcai2021_dataset6_Anonymized/dataset6_CLINIC_000{number}_mask_4label.nii.gz"] = packed(ids)
    ct, ids = hips(5, right=2)
    data7["CTPelvic1K_dataset7_data/dataset7_CLINIC_metal_0000_data.nii.gz"] = packed(ct)
    data7["CTPelvic1K_dataset7_data/dataset7_CLINIC_metal_0001_data.nii.gz"] = packed(phantom(6)[0])
    mask7["CTPelvic1K_dataset7_mask/CLINIC_metal_0000_mask_4label.nii.gz"] = packed(ids)
    mask7["CTPelvic1K_dataset7_mask/readme.txt"] = b"no image"
    for name, members in (
        ("dataset6_data", data6), ("dataset6_Anonymized_mask", mask6), ("dataset7_data", data7), ("dataset7_mask", mask7),
    ):  # fmt: skip
        write_tar(published.path(f"CTPelvic1K_{name}.tar.gz"), members)
    published.edition("ctpelvic1k", "6+7")


def index(tmp_path, source, version, *, given=None):
    path = tmp_path / f"{source}.json"
    write_index(get_edition(source, version)[1], Shelf(tmp_path / "archives", given), path)
    return path


def fetch(tmp_path, source, version, case, **options):
    return fetch_case(
        case,
        "train",
        tmp_path / "fetch" / case,
        source=source,
        version=version,
        index=tmp_path / f"{source}.json",
        shelf=Shelf(tmp_path / "archives", **options),
    )


def voxels(path):
    return np.asarray(nib.load(path).dataobj).T


def labelled(tmp_path, case, structures, cube=32):
    """Names -> boolean cube, by the stages' own commands from the fetched record on."""
    fetched, ingested, out = (tmp_path / stage / case for stage in ("fetch", "ingest", "label"))
    grid = ["--cube", str(cube), "--spacing-mm", "3", "--out", str(ingested)]
    assert main(["ingest", str(fetched / "case.json"), *grid]) == 0
    names = ["--structures", *structures, "--out", str(out)]
    assert main(["label", str(ingested / "case.json"), *names]) == 0
    record = json.loads((out / "case.json").read_text())
    assert record["status"] == "ok", record["reason"]
    cube_ids = voxels(out / "label.nii.gz")
    return {name: cube_ids == value for value, name in enumerate(structures, 1)}, record, voxels(ingested / "ct.nii.gz")
