"""Settings given as JSON become a frozen dataclass; what it does not know is refused with the nearest match."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from difflib import get_close_matches
from typing import Any, TypeVar, get_type_hints

from xr2ct.errors import UserError

PRESET = "preset"
Settings = TypeVar("Settings")


def unknown(kind: str, value: str, valid: Iterable[str]) -> UserError:
    """The error for a name that is not among `valid`, with the nearest one."""
    valid = list(valid)
    near = get_close_matches(value, valid, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"{kind} {value!r} is not known; expected one of: {', '.join(valid) or 'none'}.{hint}")


def parse_settings(
    given: Mapping[str, Any], kind: type[Settings], presets: Mapping[str, dict[str, Any]], owner: str
) -> Settings:
    """Defaults of the dataclass `kind`, then the preset named by "preset", then the keys given."""
    given = dict(given)
    name = given.pop(PRESET, None)
    if name is not None and name not in presets:
        raise unknown(f"preset of model {owner}", str(name), presets)
    types = get_type_hints(kind)
    valid = {field.name: types[field.name] for field in fields(kind)}
    for key in given:
        if key not in valid:
            raise unknown(f"setting of model {owner}", key, [*valid, *([PRESET] if presets else [])])
    chosen = {**presets.get(name, {}), **given}
    return kind(**{key: _typed(key, value, valid[key]) for key, value in chosen.items()})


def _typed(key: str, value: Any, expected: Any) -> Any:
    """JSON has one number type and no tuple: accept 1 for a float and a list for a tuple of int, nothing else."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if expected is float and number:
        return float(value)
    if expected is int and number and value == int(value):
        return int(value)
    if expected == tuple[int, ...] and isinstance(value, list | tuple) and all(type(item) is int for item in value):
        return tuple(value)
    if expected in (str, bool) and isinstance(value, expected):
        return value
    wanted = getattr(expected, "__name__", str(expected)) if expected != tuple[int, ...] else "a list of int"
    raise UserError(f"setting {key!r} is {value!r}; expected {wanted}. Correct it in the settings.")


def settings_dict(settings: Any) -> dict[str, Any]:
    """The dataclass as JSON would give it back (tuples as lists)."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}
