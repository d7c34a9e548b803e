"""What both command lines do alike: they say their version, and end without a word when nobody reads on."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

import pipeline.__main__
import xr2ct.__main__
from tests.xr2ct.golden import write_golden_shard

MAINS = {"pipeline": pipeline.__main__.main, "xr2ct": xr2ct.__main__.main}


def missing(name):
    raise importlib.metadata.PackageNotFoundError(name)


@pytest.mark.parametrize("package", MAINS)
@pytest.mark.parametrize(("version", "said"), [(lambda name: "4.5.6", "4.5.6"), (missing, "unknown")])
def test_the_version_is_that_of_the_installed_package(package, version, said, monkeypatch, capsys):
    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(SystemExit) as stopped:
        MAINS[package](["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"xr2ct {said}\n"


def into_a_closed_pipe(*words, unbuffered=""):
    """Run a command whose reader has left before the first line."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", *map(str, words)]
        env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        return subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=env)
    finally:
        os.close(writing)


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_reader_that_leaves_early_ends_the_command_without_a_word(unbuffered, tmp_path):
    shard = write_golden_shard(tmp_path / "golden.h5")
    (tmp_path / "bad.h5").write_text("no")
    for words in (("pipeline", "fetch", "--list"), ("pipeline", "--version"), ("xr2ct", "--version")):
        done = into_a_closed_pipe(*words, unbuffered=unbuffered)
        assert (done.returncode, done.stderr) == (141, ""), words
    done = into_a_closed_pipe("xr2ct", "--help", unbuffered=unbuffered)
    assert (done.returncode in (0, 141), done.stderr) == (True, "")  # argparse itself says nothing when it cannot write
    done = into_a_closed_pipe("xr2ct", "verify", shard, tmp_path / "bad.h5", unbuffered=unbuffered)
    assert done.returncode == 141 and "Error" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("package", MAINS)
def test_a_broken_pipe_that_is_not_the_output_is_not_hidden(package, monkeypatch):
    def fail(arguments):
        raise BrokenPipeError

    monkeypatch.setattr(sys.modules[f"{package}.__main__"], "_run", fail)
    with pytest.raises(BrokenPipeError):
        MAINS[package]([])
