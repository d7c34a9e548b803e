"""The plan of a cohort: which CTs to fetch, which cases they become, and which split each belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.errors import UserError
from pipeline.patients import CASE_ID, is_case_id
from pipeline.sources import SOURCES, get_edition
from pipeline.sources.contract import PlannedCase, index_path, read_index, split_of

__all__ = ["CASE_ID", "DerivedCase", "Plan", "PlannedCase", "is_case_id", "make_plan"]

DERIVED_SPLITS = ("train", "family_validation", "family", "family_transfer")


@dataclass(frozen=True)
class DerivedCase:
    """A deformation to make of `parent`; `number` seeds it. `deformation` is what it does other than the experiment's."""

    id: str
    parent: str
    split: str
    number: int
    deformation: dict[str, float | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All cases of an experiment.

    `scans` are the CTs to fetch, `cases` what becomes of them: the same, unless every CT holds several cases.
    `indexes` are the lists of cases that public data sets need, with the arguments of `python -m pipeline index`; the
    cases of those in `unknown` are not in the plan, because their list has not been made yet.
    """

    scans: dict[str, PlannedCase] = field(default_factory=dict)
    cases: dict[str, PlannedCase] = field(default_factory=dict)
    derived: dict[str, DerivedCase] = field(default_factory=dict)
    indexes: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    unknown: tuple[Path, ...] = ()


def make_plan(config: dict, folder: Path) -> Plan:
    """Expand the checked config; relative paths count from `folder`. Duplicate ids are refused, bad ids are renamed."""
    scans: dict[str, PlannedCase] = {}
    taken: dict[str, str] = {}
    indexes, unknown = {}, []
    for entry in config["cohort"]:
        planned = SOURCES[entry["source"]].plan
        if planned:
            found = planned(entry, folder)
        else:
            index, arguments = _index(entry, folder)
            if indexes.setdefault(index, arguments) != arguments:
                raise UserError(f"two cohort entries of source {entry['source']!r} name different 'archives'.")
            if not (folder / index).exists():
                unknown.append(index)
                continue
            found = _of_edition(entry, folder / index)
        for case in found:
            twin = taken.setdefault(case.id.lower(), case.id)
            if case.id in scans or twin != case.id:
                raise UserError(f"case id {case.id!r} appears twice in the cohort (as {twin!r}). Rename one of them.")
            _check_license(case, config.get("license_allow") or [])
            scans[case.id] = case
    cases = _cases(scans, case_suffixes(config))
    derived = _derived(config["derive"], cases, bool(unknown))
    return Plan(scans, cases, derived, indexes, tuple(dict.fromkeys(unknown)))


def case_suffixes(config: dict) -> list[str]:
    """What is added to the id of a CT for each case that it becomes: nothing, or for single vertebrae -L1, -L2, ..."""
    region = config.get("region", {"kind": "cube"})
    return [f"-{name}" for name in region["vertebrae"]] if region["kind"] == "vertebra" else [""]


def _cases(scans: dict[str, PlannedCase], suffixes: list[str]) -> dict[str, PlannedCase]:
    """The cases of all CTs in order; UserError where an id grows too long."""
    cases = {scan.id + suffix: replace(scan, id=scan.id + suffix) for scan in scans.values() for suffix in suffixes}
    long = [case for case in cases if len(case) > 64]
    if long:
        raise UserError(f"case {long[0]!r} has an id longer than 64 characters. Rename its CT.")
    return cases


def _check_license(case: PlannedCase, allowed: list[str]) -> None:
    if allowed and case.license not in allowed:
        raise UserError(
            f"case {case.id} is licensed {case.license}; license_allow has: {', '.join(allowed)}. Allow its licence, or take "
            "it out of the cohort."
        )


def _index(entry: dict, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Where the list of a data set's cases is or will be, and how to make it."""
    version, _ = get_edition(entry["source"], entry.get("version", ""))
    arguments = (f"--source={entry['source']}", f"--version={version}")
    if entry.get("archives"):
        arguments += (f"--from={(folder / entry['archives']).resolve()}",)
    return index_path(entry["source"], version), arguments


def _of_edition(entry: dict, index: Path) -> list[PlannedCase]:
    """Cases of a public data set: all of them, or those that `cases` names, at most `limit`."""
    version, edition = get_edition(entry["source"], entry.get("version", ""))
    known, chosen = read_index(index), entry.get("cases") or {}
    unknown = [case for case in chosen if case not in known]
    if unknown:
        raise UserError(
            f"source {entry['source']} {version} has no usable case {unknown[0]!r}; the {len(known)} it has are listed in "
            f"{index_path(entry['source'], version)}, from {min(known)} to {max(known)}."
        )
    planned = []
    for name in sorted(chosen or known)[: entry.get("limit")]:
        case = known[name]
        official = case.split or split_of(edition.dataset, case.subject)
        split = chosen.get(name) or entry.get("split") or official
        arguments = (f"--source={entry['source']}", f"--version={version}", f"--case={name}", f"--split={split}")
        planned.append(PlannedCase(name, split, arguments, (index_path(entry["source"], version),), edition.license))
    return planned


def _derived(entries: list[dict], cases: dict[str, PlannedCase], incomplete: bool) -> dict[str, DerivedCase]:
    """Deformed copies of training cases; a parent that is not known may still come while the plan is `incomplete`."""
    derived: dict[str, DerivedCase] = {}
    numbers: dict[str, int] = {}
    taken = {case.lower() for case in cases}
    for entry in entries:
        parent = entry["parent"]
        if parent not in cases and incomplete:
            continue
        if parent not in cases:
            raise UserError(f"derive.parent {parent!r} is no case of the cohort; expected one of: {', '.join(cases)}.")
        if cases[parent].split != "train":
            raise UserError(
                f"derive.parent {parent!r} belongs to split {cases[parent].split!r}; its derived cases would bring a "
                "held-out patient into training. Expected a parent of split 'train'."
            )
        for split in DERIVED_SPLITS:
            for _ in range(entry.get(split, 0)):
                number = numbers[parent] = numbers.get(parent, 0) + 1
                case = f"{parent}-d{number:04d}"
                if not is_case_id(case) or case.lower() in taken:
                    raise UserError(
                        f"derived case {case!r} would take the id of another case, or one longer than 64 characters. "
                        "Rename that case, or the parent."
                    )
                derived[case] = DerivedCase(case, parent, split, number, entry.get("deformation", {}))
    return derived
