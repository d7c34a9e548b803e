"""Files that want to be more than data: YAML that builds objects, arrays that hold code, cells that are formulas."""

import ast
from pathlib import Path

import pytest

from pipeline.files import read_table, write_table
from tests.cohorts import ROOT, run


def test_s03_a_config_that_builds_objects_is_refused_and_runs_nothing(tmp_path):
    (tmp_path / "config.yaml").write_text('name: x\nseed: !!python/object/apply:os.system ["touch PWNED"]\n')
    done = run(tmp_path, "-n")
    assert done.returncode != 0 and "Config file is not valid JSON or YAML" in done.stdout + done.stderr
    assert not (tmp_path / "PWNED").exists()


def calls(path: Path):
    """Name of every called attribute and its keyword arguments, with their source."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield ast.unparse(node.func), {item.arg: ast.unparse(item.value) for item in node.keywords}


@pytest.mark.parametrize("package", ["pipeline", "xr2ct"])
def test_s03_s04_nothing_here_reads_a_format_that_can_run_code(package):
    """NumPy files without pickled objects, YAML only by safe_load, checkpoints only as weights."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for name, options in calls(path):
            assert name not in ("pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load"), path
            assert name not in ("np.load", "numpy.load") or options.get("allow_pickle") == "False", path
            assert name != "torch.load" or options.get("weights_only") == "True", path


@pytest.mark.parametrize("cell", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "-"])
def test_s05_a_cell_that_a_spreadsheet_would_run_is_text(tmp_path, cell):
    write_table(tmp_path / "t.tsv", ("reason", "hu", "case"), [{"reason": cell, "hu": -5.0, "case": "a-b"}])
    (row,) = read_table(tmp_path / "t.tsv")
    assert row == {"reason": "'" + cell.strip(), "hu": "-5.0", "case": "a-b"}
