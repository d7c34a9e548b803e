"""The recipes say what the paper and its lineage say, each setting with its source."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

import xr2ct
from xr2ct.models.registry import choose
from xr2ct.models.spider_settings import RECIPES, SpiderSettings
from xr2ct.settings import settings_dict
from xr2ct.training_settings import learning_rate

FOLDER = Path(xr2ct.__file__).parent / "recipes"
NETWORK = {"widths", "convolutions", "norm", "head", "hidden", "layers", "repeat_input", "log2_entries"}


def chosen(*names):
    return choose("spider", {"preset": list(names)})[1]


def test_the_default_recipe_is_the_defaults_in_full():
    assert set(RECIPES["default"]) == {field.name for field in fields(SpiderSettings)}
    assert settings_dict(chosen("default")) == settings_dict(SpiderSettings())


@pytest.mark.parametrize("name", RECIPES)
def test_every_line_of_a_recipe_names_its_source(name):
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    for line in lines:
        assert line.startswith("#") or "  # " in line, line


def test_the_paper_is_descended_as_printed():
    """Section IV-B: SGD, 1e-3 halved every 100 of 500 epochs, lambda 0.3; eq. 25; L 11, F 8."""
    paper = chosen("paper")
    assert (paper.optimizer, paper.momentum, paper.weight_decay, paper.clip) == ("sgd", 0, 0, 0)
    assert (paper.epochs, paper.intensity_weight, paper.dice_weight, paper.entropy_weight) == (500, 1, 0.3, 0)
    assert (paper.dice, paper.dice_background, paper.decoder) == ("micro", True, "shared")
    assert (paper.levels, paper.level_features) == (11, 8)
    assert (paper.grid_shift, paper.intensity_balance) == (0, 0)
    cases = 40  # ten steps of batch 4 per epoch
    rates = [learning_rate(step, cases, paper) for step in (0, 999, 1000, 4999)]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 1e-3 / 16])


def test_the_lineage_is_the_paper_with_what_it_leaves_open_from_difnet():
    """SGD momentum .98, decay 1e-3, clip 1, batch 4, 10,000 points; rate and epochs are printed (S5)."""
    lineage, paper = chosen("lineage"), chosen("paper")
    assert (lineage.momentum, lineage.weight_decay, lineage.clip) == (0.98, 1e-3, 1)
    assert (lineage.batch, lineage.sampling, lineage.scattered_points) == (4, "uniform", 10_000)
    assert replace(lineage, momentum=0.0, weight_decay=0.0, clip=0.0) == paper


def test_adam_changes_the_optimiser_alone():
    """S5: a second preset beside the printed SGD; the rate is the printed one too."""
    assert chosen("paper", "adam") == replace(chosen("paper"), optimizer="adam", learning_rate=1e-3)


@pytest.mark.parametrize(
    ("name", "widths", "norm", "head"),
    [("small", (32, 64, 128, 256), "group", 32), ("large", (64, 128, 256, 512, 1024), "batch", 128)],
)
def test_sizes_are_networks_only_and_go_with_any_recipe(name, widths, norm, head):
    assert set(RECIPES[name]) == NETWORK
    both = chosen("paper", name)
    assert (both.widths, both.norm, both.head) == (widths, norm, head)
    assert (both.optimizer, both.epochs) == ("sgd", 500)
