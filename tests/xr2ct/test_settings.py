"""Settings from JSON: what is accepted, what is refused and with which words."""

from dataclasses import dataclass

import pytest

from xr2ct.errors import UserError
from xr2ct.models.registry import MODELS, choose
from xr2ct.settings import parse_settings, read_presets, settings_dict


@dataclass(frozen=True)
class Example:
    steps: int = 10
    rate: float = 0.5
    widths: tuple[int, ...] = (1, 2)
    name: str = "a"
    fast: bool = False
    parts: tuple[str, ...] = ()


def parse(given):
    presets = {"quick": {"steps": 1, "rate": 2.0}, "wide": {"widths": [7], "rate": 3}, "wrong": {"stepz": 1}}
    return parse_settings(given, Example, presets, "example")


def test_keys_go_over_the_preset_and_the_preset_over_the_defaults():
    assert parse({}) == Example()
    assert parse({"preset": "quick", "steps": 3}) == Example(steps=3, rate=2.0)


def test_of_several_presets_later_ones_win_and_keys_go_over_all():
    assert parse({"preset": ["quick", "wide"]}) == Example(steps=1, rate=3.0, widths=(7,))
    assert parse({"preset": ["wide", "quick"], "steps": 4}) == Example(steps=4, rate=2.0, widths=(7,))
    assert parse({"preset": []}) == Example()


def test_json_values_take_the_type_of_the_field():
    parsed = parse({"rate": 1, "steps": 2.0, "widths": [3, 4], "fast": True, "parts": ["a"]})
    assert parsed == Example(rate=1.0, steps=2, widths=(3, 4), fast=True, parts=("a",))
    assert type(parsed.rate) is float
    assert type(parsed.steps) is int
    assert parse(settings_dict(parsed)) == parsed


@pytest.mark.parametrize(
    "given",
    [{"steps": "many"}, {"steps": 1.5}, {"steps": True}, {"rate": None}, {"widths": 3}, {"widths": [1.5]}, {"fast": 1},
     {"parts": "all"}, {"parts": [1]}, {"rate": 10**400}, {"steps": 10**400}, {"steps": 1e300}, {"steps": 2**63},
     {"widths": [10**400]}, {"rate": float("inf")}],
    ids=lambda given: str(given)[:20],
)  # fmt: skip
def test_a_value_of_another_type_is_refused_with_its_key(given):
    with pytest.raises(UserError, match=rf"setting '{next(iter(given))}' is .*; expected "):
        parse(given)


def test_an_unknown_key_lists_the_keys_and_the_nearest():
    with pytest.raises(
        UserError, match=r"'stesp'.*steps, rate, widths, name, fast, parts, preset.*Did you mean 'steps'\?"
    ):
        parse({"stesp": 1})


@pytest.mark.parametrize("given", ["quik", ["wide", "quik"]], ids=str)
def test_an_unknown_preset_lists_the_presets(given):
    with pytest.raises(UserError, match=r"'quik'.*one of: quick.*Did you mean 'quick'\?"):
        parse({"preset": given})


@pytest.mark.parametrize("given", [3, None, [["quick"]], {"quick": 1}], ids=str)
def test_a_preset_that_is_no_name_is_refused(given):
    with pytest.raises(UserError, match=r"preset of model example .* is not known"):
        parse({"preset": given})


def test_presets_are_read_from_yaml(tmp_path):
    (tmp_path / "slow.yaml").write_text("steps: 9  # why\nwidths: [1, 2]\n")
    (tmp_path / "notes.txt").write_text("not one")
    assert read_presets(tmp_path) == {"slow": {"steps": 9, "widths": [1, 2]}}


def test_a_wrong_key_in_a_preset_is_named():
    with pytest.raises(UserError, match="'stepz'"):
        parse({"preset": "wrong"})


def test_an_unknown_model_lists_the_models():
    with pytest.raises(UserError, match=r"'spyder'.*mean, nearest, backprojection, spider.*Did you mean 'spider'\?"):
        choose("spyder", {})


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_defaults_and_presets_that_parse(name):
    for preset in MODELS[name].presets:
        choose(name, {"preset": preset})
    with pytest.raises(UserError, match="nonsense"):
        choose(name, {"nonsense": 1})
    assert settings_dict(choose(name, {})[1]) == settings_dict(MODELS[name].settings())


def test_steps_that_are_asked_for_are_not_overruled_by_the_epochs_of_a_preset():
    assert choose("spider", {"preset": "paper"})[1].epochs == 500
    given = choose("spider", {"preset": "paper", "steps": 7})[1]
    assert (given.steps, given.epochs) == (7, 0)
    assert choose("spider", {"preset": "paper", "steps": 7, "epochs": 3})[1].epochs == 3


def test_a_model_without_settings_says_so():
    with pytest.raises(UserError, match="setting of model mean 'steps' is not known; there is none to choose"):
        choose("mean", {"steps": 3})
