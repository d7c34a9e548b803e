"""What every source of CTs says about itself and can do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.sources.shelf import RemoteFile, Shelf

SPLITS = ("train", "validation", "test")
INDEX_FOLDER = Path("results/sources")


@dataclass(frozen=True)
class PlannedCase:
    """A case before anything was read. `fetch` are the arguments of `python -m pipeline fetch` for it."""

    id: str
    split: str
    fetch: tuple[str, ...]
    inputs: tuple[Path, ...] = ()
    license: str = ""


@dataclass(frozen=True)
class SourceCase:
    """One CT of a public data set. `split` is the official one, if any; `files` is for the source's own use."""

    id: str
    subject: str
    split: str = ""
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Edition:
    """One version of a public data set whose cases only its archives tell.

    `list_cases` looks into the archives on a shelf; `read_case` puts one CT (and its labels) into a folder and returns
    the record's `ct` and `label`, and what else it found out (`label_names`).
    """

    dataset: str
    version: str
    doi: str
    license: str
    attribution: str
    mixing: str
    label_scheme: str
    files: tuple[RemoteFile, ...]
    list_cases: Callable[[Edition, Shelf], list[SourceCase]]
    read_case: Callable[[Edition, Shelf, SourceCase, Path], dict]


@dataclass(frozen=True)
class Source:
    """Where CTs come from: a public data set with `editions`, or something that can tell its cases at once (`plan`).

    `editions` are versions by name, the default first; `refused` are versions that exist and must not be used, with the
    reason. `keys` are the keys that an entry of the config's cohort may have, `needs` those that it must have.
    """

    about: str
    keys: tuple[str, ...] = ("cases", "limit", "split", "version", "archives")
    needs: tuple[str, ...] = ()
    plan: Callable[[dict, Path], list[PlannedCase]] | None = None
    editions: Mapping[str, Edition] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def index_path(source: str, version: str) -> Path:
    """Where the list of an edition's cases is kept, relative to the working folder."""
    return INDEX_FOLDER / f"{source}-{version}.json"


def write_index(edition: Edition, shelf: Shelf, path: Path) -> int:
    """List an edition's cases in a file; how many there are."""
    cases = sorted(edition.list_cases(edition, shelf), key=lambda case: case.id)
    if not cases:
        raise UserError(f"{edition.dataset} {edition.version}: no case found in its archives.")
    write_json(path, [asdict(case) for case in cases])
    return len(cases)


def read_index(path: Path) -> dict[str, SourceCase]:
    """The cases that `write_index` listed, by id."""
    try:
        return {case["id"]: SourceCase(**case) for case in json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(f"{path} is no list of cases. Run `python -m pipeline index` for its source.") from None


def split_of(dataset: str, subject: str) -> str:
    """80 % train, 10 % validation, 10 % test by a hash of the patient: for data sets without an official split."""
    tenth = int(hashlib.sha256(f"{dataset}\0{subject}".encode()).hexdigest(), 16) % 10
    return "test" if tenth == 0 else "validation" if tenth == 1 else "train"
