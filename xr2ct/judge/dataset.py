"""The true CTs and labels of shards as a data set of nnU-Net: NIfTI files and dataset.json."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from xr2ct.errors import UserError
from xr2ct.nifti import save_nifti
from xr2ct.shards import IGNORE, NOT_ANNOTATED, Case, Shard

NAME = "Dataset001_judge"


@dataclass(frozen=True)
class Choice:
    """The cases to learn from as (shard, number); `left_out` says why by case id; `ignore`: some voxels are 255."""

    structures: tuple[str, ...]
    cases: dict[str, tuple[Shard, int]]
    left_out: dict[str, str]
    ignore: bool


def choose_cases(shards: Sequence[Shard]) -> Choice:
    """The cases that are annotated for every structure: nnU-Net would learn a gap as background."""
    structures = shards[0].structures
    if len(structures) < 2:
        raise UserError(f"{shards[0].path}: names no structure; a judge learns at least one. Label the shards first.")
    cases: dict[str, tuple[Shard, int]] = {}
    left_out: dict[str, str] = {}
    ignore = False
    for shard in shards:
        if shard.structures != structures:
            found, wanted = (" ".join(names) for names in (shard.structures, structures))
            raise UserError(
                f"{shard.path}: structures {found}; expected {wanted} as in {shards[0].path}. "
                "Use shards made by one configuration."
            )
        for i in range(len(shard)):
            case = shard.case(i)
            if case.id in cases or case.id in left_out:
                raise UserError(f"{shard.path}: case {case.id!r} occurs twice in the shards. Give every shard once.")
            if problem := _unfit(case, structures):
                left_out[case.id] = problem
            else:
                cases[case.id] = shard, i
                ignore |= bool((case.label == IGNORE).any())
    if not cases:
        raise UserError(
            f"none of the {len(left_out)} cases can teach a judge (the first: {next(iter(left_out.values()), 'none')}); "
            "expected cases annotated for every structure. Use fewer structures or other shards."
        )
    return Choice(structures, cases, left_out, ignore)


def write_dataset(choice: Choice, raw: Path) -> None:
    """Write the data set below `raw`; voxels that nobody may judge get nnU-Net's label to be ignored."""
    folder, last = raw / NAME, len(choice.structures)
    entries = {}
    for number, (shard, i) in enumerate(tqdm(choice.cases.values(), desc="write data set", unit="case")):
        case = shard.case(i)
        entry = {"images": [f"imagesTr/{number:05d}_0000.nii.gz"], "label": f"labelsTr/{number:05d}.nii.gz"}
        save_nifti(folder / entry["images"][0], case.ct_hu, case.affine)
        label = np.where(case.label == IGNORE, last, case.label).astype(np.uint8)
        save_nifti(folder / entry["label"], label, case.affine)
        entries[f"{number:05d}"] = entry
    labels = {name: value for value, name in enumerate(choice.structures)}
    content = {
        "channel_names": {"0": "CT"},
        "labels": labels | ({"ignore": last} if choice.ignore else {}),
        "numTraining": len(entries),
        "file_ending": ".nii.gz",
        # reads any affine, where the other reader refuses what is not orthonormal to the last digit
        "overwrite_image_reader_writer": "NibabelIO",
        "dataset": entries,
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _unfit(case: Case, structures: Sequence[str]) -> str:
    missing = [structures[i] for i in np.flatnonzero(case.label_status == NOT_ANNOTATED) if i]
    if missing:
        return f"not annotated: {', '.join(missing)}"
    return "no labelled voxel" if not ((case.label != 0) & (case.label != IGNORE)).any() else ""
