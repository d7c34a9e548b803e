"""resources/sources.md says of every source what the code says, and its config lines are valid."""

from __future__ import annotations

import re

import pytest
import yaml

from pipeline.config import check_config
from pipeline.sources import SOURCES
from pipeline.sources.packages import PACKAGE_CASES
from tests.cohorts import CONFIG, ROOT

PAGE = ROOT / "resources" / "sources.md"
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))


def table() -> str:
    """Source, version, licence, archives, labels, from the sources themselves; the first version is the default."""
    lines = ["| source | version | licence | archives | ids of its labels | DOI |", "|---|---|---|---|---|---|"]
    for name, source in SOURCES.items():
        for version, edition in source.editions.items():
            known = [file.size for file in edition.files]
            size = f"{sum(known) / 1e9:.1f} GB" if known and all(known) else f"{len(known)} files" if known else "none"
            cells = [f"`{name}`", version, edition.license, size, edition.label_scheme, edition.doi]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_table_is_that_of_the_sources():
    found = re.search(r"<!-- table -->\n(.*?)\n\n", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found and found[1] == table(), f"put this below the mark in {PAGE.name}:\n{table()}"


def test_every_source_has_a_section_and_every_section_a_source():
    assert list(SECTIONS) == list(SOURCES)
    for name, text in SECTIONS.items():
        for part in ("**Disk**", "**Licence**", "**Mix**", "**Known bad**", "```yaml"):
            assert part in text or (name == "packages" and part == "**Licence**"), (name, part)


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source.editions])
def test_licence_citation_and_refused_versions_agree_with_the_code(name):
    text = " ".join(SECTIONS[name].split())
    for version, edition in SOURCES[name].editions.items():
        assert f"**Licence** {edition.license}" in text, version
        for doi in re.findall(r"(?:doi|arXiv):\S+?(?=[;,)]|$| )", edition.attribution):
            assert doi in text, doi
        for author in re.findall(r"(\w+) et al", edition.attribution):
            assert author in text, author
        others = {other.license for source in SOURCES.values() for other in source.editions.values()} - {
            edition.license
        }
        assert not [other for other in others if re.search(rf"\*\*Licence\*\* {re.escape(other)}\b(?!-)", text)]
        first = edition.mixing.split(":")[0].split(";")[0].split(" (")[0].split(" before")[0]
        assert first in text, f"mixing: {first}"
    for version in SOURCES[name].refused:
        assert re.search(rf"[Vv]ersion {re.escape(version)}\b", text), version


@pytest.mark.parametrize("name", SOURCES)
def test_the_lines_for_the_config_are_valid_and_are_of_that_source(name):
    (block,) = re.findall(r"```yaml\n(.*?)```", SECTIONS[name], re.DOTALL)
    cohort = yaml.safe_load(block)["cohort"]
    assert [entry["source"] for entry in cohort] == [name]
    checked = check_config({**CONFIG, "cohort": cohort})
    assert checked["cohort"][0]["source"] == name


def test_the_licences_of_the_packages_are_named():
    for case, entry in PACKAGE_CASES.items():
        assert f"`{case}`" in SECTIONS["packages"] and entry.license in SECTIONS["packages"]


def test_the_readme_names_every_source_and_its_licence():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## Public data sets\n(.*?)(?=^## )", readme, re.MULTILINE | re.DOTALL)[1]
    assert "resources/sources.md" in section
    for name, source in SOURCES.items():
        for edition in source.editions.values():
            row = re.search(rf"^\| `{name}` .*$", section, re.MULTILINE)
            assert row and edition.license in row[0], name
    for block in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL):
        check_config({**CONFIG, "cohort": yaml.safe_load(block)["cohort"]})
