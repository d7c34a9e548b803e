"""A published file is whole or not there."""

import os

import pytest

from xr2ct.files import publish


def test_the_file_appears_whole_and_alone(tmp_path):
    target = tmp_path / "new" / "ct.nii.gz"
    with publish(target) as temporary:
        assert temporary.parent == target.parent and temporary.name.endswith("ct.nii.gz")
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert os.listdir(target.parent) == ["ct.nii.gz"]


def test_who_reads_the_old_file_keeps_it_whole(tmp_path):
    target = tmp_path / "a.csv"
    target.write_text("old")
    with target.open() as reader:
        with publish(target) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old" and target.read_text() == "new"


def test_an_exception_leaves_what_was_there(tmp_path):
    target = tmp_path / "a.csv"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), publish(target) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["a.csv"]


def test_the_leftover_of_a_killed_run_is_swept(tmp_path):
    target = tmp_path / "a.csv"
    with publish(target) as temporary:
        leftover = temporary
        temporary.write_text("first")
    leftover.write_text("left by a killed run")
    with publish(target) as temporary:
        assert not temporary.exists()
        temporary.write_text("second")
    assert target.read_text() == "second" and os.listdir(tmp_path) == ["a.csv"]


def test_writing_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), publish(tmp_path / "a.csv"):
        pass
    assert not list(tmp_path.iterdir())
