"""Where CTs come from, by the name that `source` has in the config: one file per source, one contract (contract.py)."""

from __future__ import annotations

from pipeline.errors import UserError
from pipeline.sources import ctpelvic1k, ctspine1k, folder, idc, packages, totalsegmentator, verse
from pipeline.sources.contract import Edition, Source

SOURCES: dict[str, Source] = {
    "totalsegmentator": totalsegmentator.SOURCE,
    "verse": verse.SOURCE,
    "ctpelvic1k": ctpelvic1k.SOURCE,
    "ctspine1k": ctspine1k.SOURCE,
    "lidc": idc.LIDC,
    "nlst": idc.NLST,
    "packages": packages.SOURCE,
    "folder": folder.SOURCE,
}


def get_edition(source: str, version: str = "") -> tuple[str, Edition]:
    """(version, edition) of a public data set; without a version its default."""
    with_editions = [name for name, entry in SOURCES.items() if entry.editions]
    if source not in with_editions:
        raise UserError(f"source {source!r} has no archives; expected one of: {', '.join(with_editions)}.")
    entry = SOURCES[source]
    if version in entry.refused:
        raise UserError(f"source {source}, version {version!r} is refused: {entry.refused[version]}.")
    version = version or next(iter(entry.editions))
    if version not in entry.editions:
        raise UserError(f"source {source} has no version {version!r}; expected one of: {', '.join(entry.editions)}.")
    return version, entry.editions[version]
