"""What nnU-Net wants to know by environment variable, set only while it works, and what it prints, kept in one file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from xr2ct.errors import UserError

OLDEST = (2, 8)
"""The first nnunetv2 that looks up its folders when they are used; older ones fix them at the first import."""


def require_nnunet() -> str:
    """The version of nnunetv2; UserError with the line to run where it is missing or too old."""
    todo = "Run: pip install 'xr2ct[nnunet]' -c constraints.txt"
    if find_spec("nnunetv2") is None:
        raise UserError(f"judging by nnU-Net needs the package nnunetv2, which is not installed. {todo}")
    try:
        found = version("nnunetv2")
    except PackageNotFoundError:
        found = "0"
    if tuple(int(part) for part in found.split(".")[:2] if part.isdecimal()) < OLDEST:
        raise UserError(f"nnunetv2 is {found}; expected {OLDEST[0]}.{OLDEST[1]} or newer. {todo}")
    return found


@contextmanager
def nnunet_environment(folder: Path, *, processes: int = 1, augmenters: int = 0) -> Iterator[None]:
    """Let nnU-Net keep its raw, preprocessed and results folders below `folder` and print to `folder`/nnunet.log.

    `augmenters` 0 augments in this process: the only way that a seed decides what a training sees.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, str | None] = {
        f"nnUNet_{name}": str((folder / name).resolve()) for name in ("raw", "preprocessed", "results")
    }
    wanted |= {"nnUNet_def_n_proc": str(processes), "nnUNet_n_proc_DA": str(augmenters)}
    # Compiling needs a C compiler and gives the same numbers; the other two would run or tell what is not ours.
    wanted |= {"nnUNet_compile": "f", "nnUNet_extTrainer": None, "nnUNet_wandb_enabled": "0"}
    with environment(wanted), (folder / "nnunet.log").open("a", encoding="utf-8") as log, redirect_stdout(log):
        yield


@contextmanager
def environment(wanted: dict[str, str | None]) -> Iterator[None]:
    """Set (None: unset) variables for the time of a block, whatever becomes of them inside."""
    before = {name: os.environ.get(name) for name in wanted}
    _set(wanted)
    try:
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
