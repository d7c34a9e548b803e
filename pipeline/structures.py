"""From the class ids of a label source to the structures of an experiment, by name: ids change between versions."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from pipeline.errors import UserError
from pipeline.files import read_table

TABLES = Path(__file__).parents[1] / "resources" / "labels"
_STRUCTURES = "structures"

Scheme = Mapping[int, str]


def load_scheme(name: str) -> dict[int, str]:
    """Class id -> class name of a table in resources/labels."""
    known = sorted(path.stem for path in TABLES.glob("*.tsv") if path.stem != _STRUCTURES)
    if name not in known:
        raise UserError(
            f"label scheme {name!r} is not known; expected one of: {', '.join(known)}. Add a table to resources/labels."
        )
    return {int(row["id"]): row["name"] for row in read_table(TABLES / f"{name}.tsv")}


def load_structures() -> dict[str, tuple[str, ...]]:
    """Structure -> the class names it is made of."""
    return {row["structure"]: tuple(row["members"].split()) for row in read_table(TABLES / f"{_STRUCTURES}.tsv")}


def structure_lookup(
    scheme: Scheme, structures: Sequence[str], remap: Mapping[int, int] | None = None
) -> UInt8[ndarray, "id"]:
    """Table from source id to 1..K in the order of `structures`, 0 for background and for classes nobody asked for.

    `remap` (old id -> id of the scheme) applies first. A structure that the scheme cannot annotate stays 0 altogether:
    half a structure is not a label. The table ends at the largest id of scheme and remap.
    """
    value_of = {}
    annotated = annotated_structures(scheme, structures)
    for value, (structure, known) in enumerate(zip(structures, annotated, strict=True), start=1):
        for name in {structure, *_members(structure)} & set(scheme.values()) if known else ():
            if value_of.setdefault(name, value) != value:
                raise UserError(
                    f"structures {structures[value_of[name] - 1]} and {structure} both hold {name}; expected "
                    "structures that do not overlap. Remove one of them."
                )
    lookup = np.zeros(max([0, *scheme, *(remap or {})]) + 1, np.uint8)
    for source in range(1, len(lookup)):
        lookup[source] = value_of.get(scheme.get((remap or {}).get(source, source), ""), 0)
    return lookup


def annotated_structures(scheme: Scheme, structures: Sequence[str]) -> list[bool]:
    """For each structure whether the scheme names all its members, or the structure itself (then it is complete)."""
    names = set(scheme.values())
    return [names.issuperset(_members(structure)) or structure in names for structure in structures]


def check_structures(structures: Iterable[str]) -> None:
    """UserError for the first structure that resources/labels/structures.tsv does not list."""
    for structure in structures:
        _members(structure)


def _members(structure: str) -> tuple[str, ...]:
    known = load_structures()
    if structure not in known:
        near = difflib.get_close_matches(structure, known, n=1, cutoff=0.0)[0]
        raise UserError(
            f"structure {structure!r} is not known; expected one of: {', '.join(known)}. Did you mean {near}?"
        )
    return known[structure]
