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


def load_additions() -> dict[str, tuple[str, ...]]:
    """Structure -> classes that belong to it where a scheme names them, as a sixth lumbar vertebra; not every scheme does."""
    return {row["structure"]: tuple(row["and_if_named"].split()) for row in read_table(TABLES / f"{_STRUCTURES}.tsv")}


def structure_lookup(
    scheme: Scheme, structures: Sequence[str], remap: Mapping[int, int] | None = None
) -> UInt8[ndarray, "id"]:
    """Table from source id to 1..K in the order of `structures`, 0 for background and for classes nobody asked for.

    `remap` (old id -> id of the scheme) applies first. A structure that the scheme cannot annotate stays 0 altogether:
    half a structure is not a label. The table ends at the largest id of scheme and remap.
    """
    value_of = {}
    annotated, additions = annotated_structures(scheme, structures), load_additions()
    for value, (structure, known) in enumerate(zip(structures, annotated, strict=True), start=1):
        members = {structure, *_members(structure), *additions.get(structure, ())}
        for name in members & set(scheme.values()) if known else ():
            _refuse_overlap(structures[value_of.setdefault(name, value) - 1], structure, name)
    lookup = np.zeros(max([0, *scheme, *(remap or {})]) + 1, np.uint8)
    for source in range(1, len(lookup)):
        lookup[source] = value_of.get(scheme.get((remap or {}).get(source, source), ""), 0)
    return lookup


def annotated_structures(scheme: Scheme, structures: Sequence[str]) -> list[bool]:
    """For each structure whether the scheme names all its members, or the structure itself (then it is complete)."""
    names = set(scheme.values())
    return [names.issuperset(_members(structure)) or structure in names for structure in structures]


def check_structures(structures: Iterable[str]) -> None:
    """UserError for the first structure that resources/labels/structures.tsv does not list, or that overlaps another."""
    owner: dict[str, str] = {}
    additions = load_additions()
    for structure in structures:
        for member in dict.fromkeys([*_members(structure), *additions.get(structure, ())]):
            _refuse_overlap(owner.setdefault(member, structure), structure, member)


def wanted_classes(scheme: Scheme, structures: Sequence[str]) -> list[str]:
    """The classes of a scheme that some structures are made of; UserError if it cannot annotate any of them."""
    additions = load_additions()
    annotated = annotated_structures(scheme, structures)
    wanted = {
        member
        for structure, known in zip(structures, annotated, strict=True)
        for member in (structure, *_members(structure), *additions.get(structure, ()))
        if known
    }
    if not wanted:
        raise UserError(
            f"the label scheme knows none of the structures {', '.join(structures)}; expected at least one. "
            "Set labels.missing to none, or choose other structures."
        )
    return [scheme[value] for value in sorted(scheme) if scheme[value] in wanted]


def _refuse_overlap(first: str, second: str, member: str) -> None:
    if first != second:
        raise UserError(
            f"structures {first} and {second} both hold {member}; expected structures that do not overlap. "
            "Remove one of them."
        )


def _members(structure: str) -> tuple[str, ...]:
    known = load_structures()
    if structure not in known:
        near = difflib.get_close_matches(structure, known, n=1, cutoff=0.0)[0]
        raise UserError(
            f"structure {structure!r} is not known; expected one of: {', '.join(known)}. Did you mean {near}?"
        )
    return known[structure]
