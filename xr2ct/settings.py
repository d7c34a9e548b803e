"""Settings given as JSON become a frozen dataclass; what it does not know is refused with the nearest match."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from xr2ct.errors import UserError

PRESET = "preset"
LARGEST = 2**63
LISTS = {tuple[int, ...]: int, tuple[str, ...]: str}
Settings = TypeVar("Settings")


def is_number(value: Any) -> bool:
    """A finite number; a whole one has to be below 2^63, which is what tensors and files count with."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < LARGEST
    return isinstance(value, float) and math.isfinite(value)


def unknown(kind: str, value: str, valid: Iterable[str]) -> UserError:
    """The error for a name that is not among `valid`, with the nearest one."""
    valid = list(valid)
    near = get_close_matches(value, valid, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    expected = f"expected one of: {', '.join(valid)}" if valid else "there is none to choose"
    return UserError(f"{kind} {value!r} is not known; {expected}.{hint}")


def read_presets(folder: Path) -> dict[str, dict[str, Any]]:
    """The settings in every <name>.yaml of a folder, by name."""
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))}


def parse_settings(
    given: Mapping[str, Any], kind: type[Settings], presets: Mapping[str, dict[str, Any]], owner: str
) -> Settings:
    """Defaults of the dataclass `kind`, then the presets that "preset" names (one, or a list where later ones win), then
    the keys given."""
    given = dict(given)
    named = given.pop(PRESET, [])
    chosen: dict[str, Any] = {}
    for name in map(str, named if isinstance(named, list | tuple) else [named]):
        if name not in presets:
            raise unknown(f"preset of model {owner}", name, presets)
        chosen |= presets[name]
    chosen |= given
    types = get_type_hints(kind)
    valid = {field.name: types[field.name] for field in fields(kind)}
    for key in chosen:
        if key not in valid:
            raise unknown(f"setting of model {owner}", key, [*valid, *([PRESET] if presets else [])])
    return kind(**{key: _typed(key, value, valid[key]) for key, value in chosen.items()})


def _typed(key: str, value: Any, expected: Any) -> Any:
    """JSON has one number type and no tuple: accept 1 for a float and a list for a tuple, nothing else."""
    if expected is float and is_number(value):
        return float(value)
    if expected is int and is_number(value) and value == int(value) and is_number(int(value)):
        return int(value)
    if expected in LISTS and isinstance(value, list | tuple) and all(_is_item(item, expected) for item in value):
        return tuple(value)
    if expected in (str, bool) and isinstance(value, expected):
        return value
    wanted = (
        f"a list of {LISTS[expected].__name__}" if expected in LISTS else getattr(expected, "__name__", str(expected))
    )
    raise UserError(f"setting {key!r} is {value!r}; expected {wanted}. Correct it in the settings.")


def _is_item(item: Any, expected: Any) -> bool:
    return type(item) is LISTS[expected] and (isinstance(item, str) or is_number(item))


def settings_dict(settings: Any) -> dict[str, Any]:
    """The dataclass as JSON would give it back (tuples as lists)."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}
