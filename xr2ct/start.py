"""Beginning from a trained model instead of from random numbers."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from xr2ct.cases import Task
from xr2ct.checkpoint import load_checkpoint
from xr2ct.errors import UserError
from xr2ct.models.registry import choose
from xr2ct.settings import settings_dict
from xr2ct.training_settings import TrainingSettings

OBJECTIVE = (
    *("sampling", "points", "run", "scattered_points", "block", "surface_share", "grid_shift", "backend", "precision"),
    *("intensity_weight", "intensity_balance", "dice_weight", "entropy_weight", "dice", "dice_background"),
)
"""Settings of models that change what is minimised and how, but not the network: a start may differ in them."""


def trained_state(path: Path, *, model: str, task: Task, settings: TrainingSettings) -> dict[str, Tensor]:
    """Parameters and buffers of the trained model at `path`, for `begin_from` of a model.

    Another model, task or network there is a UserError that names what differs.
    """
    content = load_checkpoint(path)
    saved = content["identity"]
    there = {"model": saved["model"]} | {f"task.{key}": value for key, value in saved["task"].items()}
    here = {"model": model} | {f"task.{key}": value for key, value in settings_dict(task).items()}
    if saved["model"] == model:
        there |= network(settings_dict(choose(model, saved["settings"])[1]))
        here |= network(settings_dict(settings))
    differing = [key for key in here if there.get(key) != here[key]]
    if differing:
        named = ", ".join(f"{key} {there.get(key)} there, {here[key]} here" for key in differing[:3])
        raise UserError(
            f"--start {path} is of another network or task ({named}). Make them equal, or give another file."
        )
    return content["state"]


def network(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that make the network."""
    others = {field.name for field in fields(TrainingSettings)} | set(OBJECTIVE)
    return {f"settings.{key}": value for key, value in settings.items() if key not in others}
