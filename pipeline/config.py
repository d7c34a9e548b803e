"""One experiment from config.yaml: checked against its schema, defaults filled in, every mistake named."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator

from pipeline.errors import UserError
from pipeline.orientation import require_axes
from pipeline.runs import check_runs, expand_runs
from pipeline.simulators import make_simulator
from pipeline.sources import SOURCES
from pipeline.structures import check_structures, load_scheme, wanted_classes
from pipeline.sweeps import expand_simulators

SCHEMA_PATH = Path(__file__).with_name("config.schema.yaml")
TOTALSEGMENTATOR = "totalsegmentator_v2"
LARGEST = 2**63  # random seeds and HDF5 hold whole numbers below it


_TYPES = {"array": "a list (lines that start with '- ')", "object": "a mapping (lines of 'key: value')"}


@cache
def schema() -> dict:
    """The JSON schema of config.yaml."""
    return yaml.safe_load(SCHEMA_PATH.read_text(encoding="utf-8"))


def check_config(config: dict) -> dict:
    """The config with all defaults; the first thing wrong is a `UserError` that names the key and what is valid."""
    _require_plain(config)
    for error in sorted(Draft202012Validator(schema()).iter_errors(config), key=lambda e: list(map(str, e.path))):
        raise UserError(_explain(error))
    full = _with_defaults(deepcopy(config), schema())
    full["simulators"] = expand_simulators(full["simulators"])
    full["judge"] = _list_judges(full["judge"])
    _check_references(full)
    full["runs"] = expand_runs(full["runs"], seed=full["seed"])
    return full


def _explain(error) -> str:
    where = ".".join(map(str, error.path)) or "the top level"
    if error.validator == "enum" and "propertyNames" in error.schema_path:
        return _unknown_key(error.instance, where, error.schema["enum"])
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = list(error.schema.get("properties", {}))
        return _unknown_key(next(key for key in error.instance if key not in known), where, known)
    if error.validator == "required":
        return f"config: at {where}, {error.message}. Add it; pipeline/config.schema.yaml describes every key."
    about = error.schema.get("description", "")
    expected = {
        "enum": lambda: f"one of: {', '.join(map(str, error.schema['enum']))}",
        "type": lambda: _type_words(error.schema["type"]),
    }.get(error.validator, lambda: f"{error.validator} {error.validator_value}")()
    kind = _TYPES["array" if isinstance(error.instance, list) else "object"]
    shown = kind if isinstance(error.instance, dict | list) and len(repr(error.instance)) > 80 else repr(error.instance)
    return f"config: {where} is {shown}; expected {expected}.{' ' + about if about else ''}"


def _unknown_key(key: str, where: str, known: list[str]) -> str:
    nearest = get_close_matches(key, known, n=1, cutoff=0.0)[0]
    return (
        f"config: key {key!r} at {where} is not known; the nearest valid key is {nearest!r}. "
        f"Valid keys there: {', '.join(known)}."
    )


def _type_words(types: str | list[str]) -> str:
    if isinstance(types, list):
        return " or ".join(map(_type_words, types))
    return _TYPES.get(types, f"a value of type {types}")


def _with_defaults(value, rules: dict):
    """Fill in `default` of every key that is not given, also inside objects that were filled in."""
    if isinstance(value, dict):
        for key, rule in rules.get("properties", {}).items():
            if key not in value and "default" in rule:
                value[key] = deepcopy(rule["default"])
        for key in value:
            rule = rules.get("properties", {}).get(key) or rules.get("additionalProperties")
            if isinstance(rule, dict):
                value[key] = _with_defaults(value[key], rule)
    elif isinstance(value, list) and isinstance(rules.get("items"), dict):
        value = [_with_defaults(item, rules["items"]) for item in value]
    return value


def _check_references(config: dict) -> None:
    """What the schema cannot say: names that must exist elsewhere."""
    check_structures(config["structures"])
    _check_region(config["region"])
    if config["labels"]["missing"] != "none":
        wanted_classes(load_scheme(TOTALSEGMENTATOR), structures_to_label(config))
    for name, run in config["runs"].items():
        if run["simulator"] not in config["simulators"]:
            raise UserError(
                f"config: runs.{name}.simulator is {run['simulator']!r}; expected one of the simulators: "
                f"{', '.join(config['simulators'])}."
            )
    check_runs(config["runs"], structures=config["structures"], tables=config["tables"])
    for name, simulator in config["simulators"].items():
        make_simulator(simulator, label=f"config: simulators.{name}: ")
    low, high = config["window_hu"]
    if not low < high:
        raise UserError(f"config: window_hu is [{low}, {high}]; expected the lower bound first.")
    for entry in config["cohort"]:
        load_scheme(entry["label_scheme"])
    for number, entry in enumerate(config["cohort"]):
        require_axes(entry.get("assume_orientation", ""))
        source = SOURCES[entry["source"]]
        for key in source.needs:
            if not entry.get(key):
                raise UserError(f"config: cohort.{number} has no {key!r}; source {entry['source']!r} needs it.")
        for key in set(entry) - {"source", "label_scheme", *source.keys}:
            raise UserError(
                f"config: cohort.{number} has {key!r}, which source {entry['source']!r} does not know; expected any of: "
                f"{', '.join(source.keys)}."
            )


def _check_region(region: dict) -> None:
    """The key that its kind needs, and no other."""
    needs = {"structures": "structures", "vertebra": "vertebrae"}
    for kind, key in needs.items():
        if (region["kind"] == kind) != (key in region):
            wrong = "has no" if region["kind"] == kind else "does not know"
            raise UserError(
                f"config: region of kind {region['kind']!r} {wrong} {key!r}, which belongs to kind {kind!r}."
            )
    check_structures(region.get("structures", []))


def _list_judges(judge: dict | list[dict]) -> list[dict]:
    """One judge or several as a list, without kind none; every kind once, for results/judge has one folder for each."""
    judges = judge if isinstance(judge, list) else [judge]
    kinds = [one["kind"] for one in judges]
    if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
        raise UserError(f"config: judge has kind {twice[0]!r} twice; expected every kind once. Remove one of them.")
    return [one for one in judges if one["kind"] != "none"]


def structures_to_label(config: dict) -> list[str]:
    """The structures of the experiment and those that its region follows."""
    region = config["region"]
    along = ["vertebrae"] if region["kind"] in ("spine", "vertebra") else region.get("structures", [])
    return list(dict.fromkeys([*config["structures"], *along]))


def _require_plain(value, path: tuple = ()) -> None:
    """UserError for the first key that is no text, or number that is not finite or too large to count with."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(value, dict) and not isinstance(key, str):
                where = ".".join(map(str, path)) or "the top level"
                raise UserError(f"config: key {key!r} at {where} is no text; expected a name. Write it in quotes.")
            _require_plain(item, (*path, key))
    elif not (abs(value) < LARGEST if isinstance(value, int) else not isinstance(value, float) or math.isfinite(value)):
        raise UserError(
            f"config: {'.'.join(map(str, path))} is {value!r}; expected a finite number, a whole one below 2^63. Correct it."
        )


def leaves(rules: dict | None = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict]]:
    """Every leaf of the schema with its path: what the documentation lists and the tests walk over."""
    rules = schema() if rules is None else rules
    inner = dict(rules.get("properties", {}))
    if isinstance(rules.get("additionalProperties"), dict):
        inner["*"] = rules["additionalProperties"]
    if isinstance(rules.get("items"), dict):
        inner["[]"] = rules["items"]
    inner.update({f"({n})": option for n, option in enumerate(rules.get("oneOf", []))})
    if not inner:
        yield path, rules
    for key, rule in inner.items():
        yield from leaves(rule, (*path, key))
