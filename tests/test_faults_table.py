"""tests/faults.md has a line for every id of the fault catalogue, and every test it names exists."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LAST = {"D": 11, "A": 4, "N": 21, "C": 15, "H": 14, "W": 16, "T": 8, "S": 5}
"""Group -> its last id: downloads, archives, NIfTI, DICOM, shards, workflow, training, security."""
IDS = [f"{group}{number}" for group, last in LAST.items() for number in range(1, last + 1)]
ARGUED = "argued away: "


def rows() -> dict[str, list[str]]:
    """Id -> its cells input, expected and test."""
    found: dict[str, list[str]] = {}
    for line in (TESTS / "faults.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and re.fullmatch(r"[A-Z]\d+", cells[0]):
            assert cells[0] not in found and len(cells) == 4, f"{cells[0]} twice, or not with four cells"
            found[cells[0]] = cells[1:]
    return found


def named_tests(cell: str) -> list[tuple[str, str]]:
    """(file, pattern) of every test of a cell; a pattern belongs to the file before it, without one it is '*'."""
    found: list[tuple[str, str]] = []
    file = ""
    for name, pattern in re.findall(r"((?:[\w/]+/)?test_\w+\.py)|`(test_[\w*]+)`", cell):
        if name:
            file = name
            found.append((file, "*"))
        else:
            found.append((file, pattern))
    return found


def functions(file: str) -> set[str]:
    """The tests of the one file that has this name, or this path from the repository's root."""
    paths = [TESTS.parent / file] if "/" in file else sorted(TESTS.rglob(file))
    assert len(paths) == 1 and paths[0].is_file(), f"{file}: found {len(paths)} files of that name"
    tree = ast.parse(paths[0].read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_id_of_the_catalogue_has_one_line_in_order():
    assert list(rows()) == IDS


@pytest.mark.parametrize("fault", IDS)
def test_every_test_that_is_named_exists(fault):
    given, expected, cell = rows()[fault]
    assert given and expected
    if cell.startswith(ARGUED):
        assert len(cell) > len(ARGUED) + 20
        return
    named = named_tests(cell)
    assert named, f"{fault} names no test"
    for file, pattern in named:
        assert file, f"{pattern} names no file"
        assert any(fnmatchcase(name, pattern) for name in functions(file)), f"{file} has no {pattern}"


def test_no_test_of_a_fault_is_left_out_of_the_table():
    """A test is of a fault if it is called test_<id>_..., as d01 or n06 (several ids may follow each other)."""
    listed = {fault: named_tests(cells[2]) for fault, cells in rows().items()}
    for path in sorted(TESTS.rglob("test_*.py")):
        for name in functions(path.relative_to(TESTS.parent).as_posix()):
            ids = re.match(r"test_((?:[dacnhwts]\d\d_)+)", name)
            for group, number in re.findall(r"([dacnhwts])(\d\d)_", ids[1]) if ids else ():
                fault = f"{group.upper()}{int(number)}"
                found = [file for file, pattern in listed[fault] if fnmatchcase(name, pattern)]
                assert path.name in {Path(file).name for file in found}, f"{fault} does not name {path.name} {name}"


def test_a_missing_test_would_be_noticed():
    assert named_tests("a/test_x.py `test_n01_*`, test_y.py, `test_z`") == [
        ("a/test_x.py", "*"),
        ("a/test_x.py", "test_n01_*"),
        ("test_y.py", "*"),
        ("test_y.py", "test_z"),
    ]
    with pytest.raises(AssertionError, match="found 0 files"):
        functions("test_nowhere.py")
    assert "test_a_missing_test_would_be_noticed" in functions("test_faults_table.py")
