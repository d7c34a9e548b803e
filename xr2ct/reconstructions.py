"""The index.json that `xr2ct reconstruct` writes: which run made which volume."""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from xr2ct.errors import UserError

SCHEMA, MAJOR_VERSION = "xr2ct/reconstruction", "1"


@dataclass(frozen=True)
class Reconstruction:
    """Where one reconstructed case lies; `label` is None for a model that predicts no structures."""

    ct: Path
    label: Path | None


@dataclass(frozen=True)
class Run:
    """All reconstructions of one run, by case id; runs that differ only in their `seed` ("" if none) share a `name`."""

    name: str
    seed: str
    model: str
    simulator: str
    window_hu: tuple[float, float]
    structures: tuple[str, ...]
    cases: dict[str, Reconstruction]


def read_index(path: Path) -> Run:
    """Read and check an index.json; its paths must stay below its folder."""
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        found = f"{index['schema']} {index['schema_version']}"
        if index["schema"] != SCHEMA or index["schema_version"].split(".")[0] != MAJOR_VERSION:
            raise UserError(f"{path}: holds {found}, expected {SCHEMA} {MAJOR_VERSION}.x. Reconstruct with this xr2ct.")
        low, high = index["window_hu"]
        name, seed = split_seed(index["run"], index.get("seed"))
        return Run(
            name=name,
            seed=seed,
            model=index["model"],
            simulator=index["simulator"],
            window_hu=(float(low), float(high)),
            structures=tuple(index["structures"]),
            cases={entry["case"]: _reconstruction(path, entry) for entry in index["cases"]},
        )
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}). Give the index.json of a reconstruction."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is not a whole {SCHEMA} index ({error!r}). Reconstruct again.") from error


def split_seed(folder: str, seed: int | None) -> tuple[str, str]:
    """("default", "2") from the folder default-seed2 of a run with seed 2 (None: not known); else the name as it is."""
    name, mark, suffix = folder.rpartition("-seed")
    if name and mark and suffix.isdecimal() and seed in (None, int(suffix)):
        return name, suffix
    return folder, ""


def _reconstruction(index: Path, entry: dict[str, Any]) -> Reconstruction:
    return Reconstruction(
        ct=_below(index, entry["ct"]), label=_below(index, entry["label"]) if entry["label"] is not None else None
    )


def _below(index: Path, name: str) -> Path:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise UserError(f"{index}: path {name!r} leaves the folder of the index, expected one below it. Do not use it.")
    return index.parent / relative
