"""The two stages meet in a file format only, and each needs no more than it says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imports(path):
    """Every absolute module a file imports, and whether the import stands at module level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module]
        for name in names:
            yield name, id(node) in top


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", sources("pipeline"), ids=str)
def test_pipeline_imports_nothing_of_xr2ct_and_no_torch_at_module_level(path):
    for name, top in imports(path):
        assert name.partition(".")[0] != "xr2ct"
        assert not (top and name.partition(".")[0] == "torch")


@pytest.mark.parametrize("path", sources("xr2ct"), ids=str)
def test_xr2ct_imports_nothing_of_pipeline(path):
    assert all(name.partition(".")[0] != "pipeline" for name, _ in imports(path))


def test_no_gpl_package_is_imported_at_module_level():
    for path in sources("pipeline") + sources("xr2ct"):
        assert not {name.partition(".")[0] for name, top in imports(path) if top} & {"astra", "deepdrr"}, path


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_reading_shards_needs_h5py_and_numpy_only():
    beyond = loaded_by("import xr2ct.shards") - set(sys.stdlib_module_names) - loaded_by("import h5py, numpy")
    assert beyond == {"xr2ct"}


def test_the_command_lines_start_without_heavy_packages():
    heavy = {"torch", "scipy", "nibabel", "skimage", "pydicom", "jinja2"}
    assert not loaded_by("import xr2ct.__main__, pipeline.__main__") & heavy
