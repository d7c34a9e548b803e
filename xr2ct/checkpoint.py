"""Checkpoints: tensors and JSON-able values in one file, its sha256 beside it, checked before anything is unpacked."""

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from xr2ct.errors import UserError
from xr2ct.files import publish

SCHEMA, SCHEMA_VERSION = "xr2ct/checkpoint", "1.0.0"


def sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Publish `content` and its digest; killed at any moment, `path` is whole and its sidecar names its digest.

    For that the sidecar lists the coming digest beside the present one while the file is exchanged.
    """
    buffer = io.BytesIO()
    torch.save({"schema": SCHEMA, "schema_version": SCHEMA_VERSION} | content, buffer)
    payload = buffer.getvalue()
    digest = hashlib.sha256(payload).hexdigest()
    present = _digests(path) if path.exists() else []
    _write(sidecar(path), _lines([digest, *present], path))
    _write(path, payload)
    _write(sidecar(path), _lines([digest], path))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint on the CPU; a missing, altered or foreign file is a UserError."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint; expected the model.pt of `xr2ct train`. Train first.")
    payload, digests = path.read_bytes(), _digests(path)
    if not digests:
        raise UserError(f"{path}: {sidecar(path).name} is missing; expected its sha256 beside it. Copy both files.")
    found = hashlib.sha256(payload).hexdigest()
    if found not in digests:
        raise UserError(f"{path}: sha256 is {found[:12]}..., expected {digests[0][:12]}.... Copy or train it again.")
    try:
        content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        schema, version = content["schema"], content["schema_version"]
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, EOFError) as error:
        raise UserError(f"{path}: not a checkpoint; expected the model.pt of `xr2ct train`. Give another.") from error
    if schema != SCHEMA or version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise UserError(f"{path}: schema is {schema} {version}, expected {SCHEMA} {SCHEMA_VERSION}. Train it again.")
    return content


def is_whole(path: Path) -> bool:
    """True if the file is there and has the digest that its sidecar names."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() in _digests(path)


def move_checkpoint(path: Path, target: Path) -> None:
    """Rename the file over `target`; killed at any moment, the sidecar of `target` names the digest of what is there."""
    digests, present = _digests(path), _digests(target) if target.exists() else []
    _write(sidecar(target), _lines([*digests, *present], target))
    os.replace(path, target)
    _write(sidecar(target), _lines(digests, target))


def remove_checkpoint(path: Path) -> None:
    """Remove the file, then its sidecar."""
    path.unlink(missing_ok=True)
    sidecar(path).unlink(missing_ok=True)


def _digests(path: Path) -> list[str]:
    lines = sidecar(path).read_text().splitlines() if sidecar(path).is_file() else []
    return [line.split()[0] for line in lines if line.strip()]


def _lines(digests: list[str], path: Path) -> bytes:
    return "".join(f"{digest}  {path.name}\n" for digest in digests).encode()


def _write(path: Path, payload: bytes) -> None:
    with publish(path) as private:
        private.write_bytes(payload)
