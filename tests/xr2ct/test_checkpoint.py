"""A checkpoint is whole, its digest is beside it, and nothing else is loaded."""

import hashlib
import os

import pytest
import torch

from xr2ct.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint, sidecar
from xr2ct.errors import UserError

CONTENT = {"identity": {"model": "mean", "widths": [1, 2]}, "state": {"weight": torch.arange(6.0).view(2, 3)}}


@pytest.fixture
def path(tmp_path):
    save_checkpoint(tmp_path / "model.pt", CONTENT)
    return tmp_path / "model.pt"


def test_what_is_saved_is_loaded(path):
    content = load_checkpoint(path)
    assert content["identity"] == CONTENT["identity"]
    assert torch.equal(content["state"]["weight"], CONTENT["state"]["weight"])
    assert content["schema"] == "xr2ct/checkpoint"


def test_the_sidecar_is_what_sha256sum_checks(path):
    assert sidecar(path).name == "model.pt.sha256"
    assert sidecar(path).read_text() == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  model.pt\n"


def test_the_same_content_is_the_same_bytes(path, tmp_path):
    save_checkpoint(tmp_path / "again" / "model.pt", CONTENT)
    assert path.read_bytes() == (tmp_path / "again" / "model.pt").read_bytes()


@pytest.mark.parametrize("position", [0.1, 0.5, 0.99])
def test_a_flipped_bit_is_noticed(path, position):
    payload = bytearray(path.read_bytes())
    payload[int(position * len(payload))] ^= 1
    path.write_bytes(payload)
    with pytest.raises(UserError, match=r"model\.pt: sha256 is \w{12}\.\.\., expected \w{12}"):
        load_checkpoint(path)


def test_a_missing_file_or_digest_is_said(path):
    sidecar(path).unlink()
    with pytest.raises(UserError, match=r"model\.pt\.sha256 is missing"):
        load_checkpoint(path)
    path.unlink()
    with pytest.raises(UserError, match="no such checkpoint.*Train first"):
        load_checkpoint(path)


def replace_payload(path, content):
    torch.save(content, path)
    sidecar(path).write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


@pytest.mark.parametrize("content", [[1, 2], {"state": {}}, {"schema": Attack()}], ids=["list", "no schema", "code"])
def test_a_foreign_file_is_refused_and_not_run(path, content, monkeypatch):
    monkeypatch.chdir(path.parent)
    replace_payload(path, content)
    with pytest.raises(UserError, match="not a checkpoint"):
        load_checkpoint(path)
    assert not (path.parent / "attacked").exists()


def test_another_major_version_is_refused(path):
    replace_payload(path, {"schema": "xr2ct/checkpoint", "schema_version": "2.0.0"})
    with pytest.raises(UserError, match=r"schema is xr2ct/checkpoint 2\.0\.0, expected xr2ct/checkpoint 1\.0\.0"):
        load_checkpoint(path)


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_killed_between_any_two_writes_a_whole_checkpoint_remains(path, monkeypatch, writes):
    import xr2ct.checkpoint as module

    write, done = module._write, []

    def write_until_killed(target, payload):
        if len(done) == writes:
            raise KeyboardInterrupt
        done.append(target)
        write(target, payload)

    monkeypatch.setattr(module, "_write", write_until_killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, CONTENT | {"step": 2})
    assert load_checkpoint(path).get("step") == (2 if writes == 2 else None)


def test_removing_takes_the_digest_along(path):
    remove_checkpoint(path)
    assert list(path.parent.iterdir()) == []
    remove_checkpoint(path)
