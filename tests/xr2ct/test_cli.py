"""The command line: help that teaches, errors in one line, exit codes."""

import errno
import json
import re
import subprocess
import sys

import pytest

import xr2ct.export
import xr2ct.verify
from tests.phantoms import phantom_case, write_phantom_shard
from tests.xr2ct.golden import write_golden_shard
from tests.xr2ct.runs import brighter, write_run
from xr2ct.__main__ import build_parser, main
from xr2ct.models.registry import choose
from xr2ct.settings import settings_dict
from xr2ct.shards import Shard
from xr2ct.versions import RESULT_VERSION

COMMANDS = ("train", "reconstruct", "evaluate", "judge-train", "judge", "report", "verify", "export")


@pytest.fixture
def golden(tmp_path):
    return write_golden_shard(tmp_path / "golden.h5")


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_and_explains_its_options(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and f"xr2ct {command} " in text.split("example", 1)[1]
    assert "None" not in text and "[]" not in text
    parser = build_parser()._subparsers._group_actions[0].choices[command]
    assert all(action.help for action in parser._actions)


def test_the_overview_names_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"  xr2ct {command} " in text for command in COMMANDS if command != "export")
    assert "exit codes" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evalute"], "evalute"),
        (["export", "--layout", "x2c", "--shards", "a", "--simulator", "s", "--out", "o"], "x2ct"),
        (["evaluate", "--shards", "a", "--out", "o"], "--reconstructions"),
        (["evaluate", "--reconstructions", "i", "--shards", "a", "--out", "o", "--window", "low", "9"], "low"),
        (["reconstruct", "--checkpoint", "c", "--shards", "a", "--out", "o", "--device", "gpu"], "cuda"),
    ],
)
def test_misspelt_options_are_named_with_the_valid_ones(arguments, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and said in capsys.readouterr().err


def test_a_user_error_is_one_line_and_exit_2(tmp_path, golden, capsys):
    assert run("export", "--layout", "x2ct", "--shards", golden, "--simulator", "con", "--out", tmp_path) == 2
    error = capsys.readouterr().err.splitlines()
    assert [line for line in error if line.startswith("ERROR: ")] == [
        f"ERROR: {golden}: no simulator 'con'. Use one of cone, parallel."
    ]
    assert not any("Traceback" in line for line in error)


def test_export_says_what_it_wrote(tmp_path, capsys):
    shard = write_phantom_shard(tmp_path / "s.h5", [phantom_case("p0"), phantom_case("p1")])
    assert run("export", "--layout", "x2ct", "--shards", shard, "--simulator", "cone", "--out", tmp_path / "o") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'o'}: 2 cases, each in ct_xray_data.h5\n"


@pytest.mark.parametrize("settings", ["{steps: 1}", "[1]", "7"])
def test_settings_must_be_a_json_object(settings, golden, tmp_path, capsys):
    pytest.importorskip("torch")
    arguments = ("--simulator", "cone", "--shards", golden, "--out", tmp_path / "o", "--settings", settings)
    assert run("train", "--model", "mean", *arguments) == 2
    assert capsys.readouterr().err.startswith(f"ERROR: --settings '{settings}' is not")


def test_an_unknown_model_lists_the_known_ones(golden, tmp_path, capsys):
    pytest.importorskip("torch")
    assert run("train", "--model", "spidr", "--simulator", "cone", "--shards", golden, "--out", tmp_path / "o") == 2
    error = capsys.readouterr().err
    assert "'spidr'" in error and "mean" in error and "spider" in error


def test_a_missing_checkpoint_is_said(golden, tmp_path, capsys):
    pytest.importorskip("torch")
    assert run("reconstruct", "--checkpoint", tmp_path / "no.pt", "--shards", golden, "--out", tmp_path / "o") == 2
    assert capsys.readouterr().err.startswith("ERROR: ")


@pytest.mark.parametrize(
    ("failure", "said"), [(OSError(errno.ENOSPC, "full"), "no space left"), (MemoryError(), "memory is full")]
)
def test_full_disk_and_memory_ask_to_try_again(failure, said, golden, tmp_path, monkeypatch, capsys):
    def fail(**arguments):
        raise failure

    monkeypatch.setattr(xr2ct.export, "export_x2ct", fail)
    assert run("export", "--layout", "x2ct", "--shards", golden, "--simulator", "cone", "--out", tmp_path) == 75
    assert said in capsys.readouterr().err


def test_other_failures_are_not_dressed_up(golden, tmp_path, monkeypatch):
    def fail(**arguments):
        raise OSError(errno.EIO, "disk is dying")

    monkeypatch.setattr(xr2ct.export, "export_x2ct", fail)
    with pytest.raises(OSError, match="dying"):
        run("export", "--layout", "x2ct", "--shards", golden, "--simulator", "cone", "--out", tmp_path)


def test_verify_prints_problems_and_exits_1(golden, tmp_path, capsys):
    assert run("verify", golden) == 0
    assert capsys.readouterr().out == ""
    (tmp_path / "bad.h5").write_text("no")
    assert run("verify", golden, tmp_path / "bad.h5") == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{tmp_path / 'bad.h5'}: /: cannot be read")


def test_evaluate_and_report_by_command(tmp_path, capsys):
    path = write_phantom_shard(tmp_path / "s.h5", [phantom_case("p0")], split="test")
    index = write_run(tmp_path / "truth", Shard(path))
    csv, page = tmp_path / "truth.csv", tmp_path / "report" / "index.html"
    assert run("evaluate", "--reconstructions", index, "--shards", path, "--window", -500, 500, "--out", csv) == 0
    assert "psnr_window-500to500_range1" in csv.read_text()
    assert run("report", "--shards", path, "--evaluations", csv, "--reconstructions", index, "--out", page) == 0
    said, *out = capsys.readouterr().out.splitlines()
    assert said == f"{csv}: 1 cases, 18 scores"
    assert out[0].split()[:3] == ["split", "simulator", "run"] and out[1].split()[:3] == ["test", "parallel", "truth"]
    assert out[-1] == f"report: {page}" and page.exists() and (page.parent / "summary.csv").exists()


def test_evaluate_counts_what_has_no_score(tmp_path, capsys):
    path = write_phantom_shard(tmp_path / "s.h5", [phantom_case("p0")], split="test")
    index = write_run(tmp_path / "blind", Shard(path), lambda case: (case.ct_hu, None))
    assert run("evaluate", "--reconstructions", index, "--shards", path, "--out", tmp_path / "a.csv") == 0
    said = "1 cases, 18 scores, 9 of them nan for the reason beside it"  # three metrics of three structures
    assert capsys.readouterr().out == f"{tmp_path / 'a.csv'}: {said}\n"


def test_legacy_metrics_by_command_change_no_other_number(tmp_path, capsys):
    path = write_phantom_shard(tmp_path / "s.h5", [phantom_case("p0")], split="test")
    index = write_run(tmp_path / "bright", Shard(path), brighter)
    printed, pages = [], []
    for options in ([], ["--legacy"]):
        csv, page = tmp_path / "bright.csv", tmp_path / "report" / "index.html"
        assert run("evaluate", "--reconstructions", index, "--shards", path, *options, "--out", csv) == 0
        assert run("report", "--shards", path, "--evaluations", csv, "--reconstructions", index, "--out", page) == 0
        printed.append(capsys.readouterr().out.splitlines()[1:])
        pages.append(page.read_text() + (page.parent / "summary.csv").read_text())
        assert (page.parent / "legacy.csv").exists() == bool(options)
    section = re.compile(r'<section id="legacy">.*?</section>\n|<a href="#legacy">.*?</a>', re.DOTALL)
    assert "psnr_x2ct4095" in pages[1] and section.sub("", pages[1]) == pages[0]
    (added,) = (line for line in printed[1] if "psnr_x2ct4095 " in line)
    assert added.split() == ["test", "parallel", "bright", "psnr_x2ct4095", "dB", "38.27", "1", "/", "1"]
    assert printed[1][: len(printed[0]) - 1] == printed[0][:-1]


def test_train_and_reconstruct_by_command(tmp_path, capsys):
    pytest.importorskip("torch")
    path = write_phantom_shard(tmp_path / "s.h5", [phantom_case("p0"), phantom_case("p1")])
    run_folder, out = tmp_path / "train" / "floor", tmp_path / "reconstruct" / "floor"
    common = ("--shards", path, "--device", "cpu", "--threads", 1)
    assert run("train", "--model", "mean", "--simulator", "parallel", "--out", run_folder, *common) == 0
    assert capsys.readouterr().out == f"{run_folder / 'model.pt'}: mean, 2 cases\n"
    assert run("reconstruct", "--checkpoint", run_folder / "model.pt", "--out", out, *common) == 0
    index = json.loads((out / "index.json").read_text())
    assert (index["run"], index["simulator"], [entry["case"] for entry in index["cases"]]) == (
        "floor",
        "parallel",
        ["p0", "p1"],
    )


def test_heavy_packages_are_imported_by_the_commands_that_need_them():
    heavy = {"torch", "scipy", "nibabel", "jinja2", "PIL", "h5py", "numpy"}
    code = "import sys, xr2ct.__main__, xr2ct.versions; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def test_result_versions_cover_the_commands_that_make_results():
    assert {"train", "reconstruct", "evaluate", "judge", "report"} == set(RESULT_VERSION)
    assert all(isinstance(number, int) and number > 0 for number in RESULT_VERSION.values())


def test_the_help_of_train_names_every_model_preset_and_setting(capsys):
    from dataclasses import fields

    from xr2ct.models.registry import MODELS

    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    for name, entry in MODELS.items():
        assert name in text
        for word in [*entry.presets, *(field.name for field in fields(entry.settings))]:
            assert re.search(rf"\b{word}\b", text), word


def test_the_help_of_reconstruct_names_every_backend_of_the_hash_grid(capsys):
    from xr2ct.encoding import BACKENDS

    with pytest.raises(SystemExit):
        main(["reconstruct", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"of the hash grid: {', '.join([*BACKENDS][:-1])} or {[*BACKENDS][-1]}," in text


def test_the_numbers_in_the_help_of_train_are_the_defaults(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    defaults = settings_dict(choose("spider", {})[1])
    said = {
        name: float(value) for name, value in re.findall(r"\b([a-z0-9_]+) ([0-9][0-9.e-]*)\b", text) if name in defaults
    }
    assert len(said) > 20 and said == {name: defaults[name] for name in said}
