"""The models by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xr2ct.models.backprojection import Backprojection, BackprojectionSettings
from xr2ct.models.mean import Mean, MeanSettings
from xr2ct.models.model import Factory
from xr2ct.models.nearest import Nearest, NearestSettings
from xr2ct.models.spider import Spider
from xr2ct.models.spider_settings import RECIPES, SpiderSettings
from xr2ct.settings import parse_settings, unknown
from xr2ct.training_settings import TrainingSettings


@dataclass(frozen=True)
class Entry:
    """How to build a model, the settings it takes and named presets of them."""

    build: Factory
    settings: type
    presets: Mapping[str, dict[str, Any]] = field(default_factory=dict)


MODELS: dict[str, Entry] = {
    "mean": Entry(Mean, MeanSettings),
    "nearest": Entry(Nearest, NearestSettings),
    "backprojection": Entry(Backprojection, BackprojectionSettings),
    "spider": Entry(Spider, SpiderSettings, RECIPES),
}


def choose(name: str, settings: Mapping[str, Any]) -> tuple[Entry, Any]:
    """The entry of a model and its parsed settings; an unknown name or key is an error that lists the known ones."""
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    if "steps" in settings and issubclass(MODELS[name].settings, TrainingSettings):
        settings = {"epochs": 0} | dict(
            settings
        )  # steps that are asked for are not overruled by the epochs of a preset
    return MODELS[name], parse_settings(settings, MODELS[name].settings, MODELS[name].presets, name)
