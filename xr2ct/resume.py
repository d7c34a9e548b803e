"""The state from which a stopped training goes on: the newest, and the one before in case the newest is damaged."""

import sys
from pathlib import Path
from typing import Any

from xr2ct.checkpoint import is_whole, load_checkpoint, move_checkpoint, remove_checkpoint, save_checkpoint
from xr2ct.errors import UserError

RESUME, PREVIOUS = "resume.pt", "resume.previous.pt"


def save_resume(out: Path, content: dict[str, Any]) -> None:
    """Publish `content` as the newest state; a whole former one becomes the previous. Killed anywhere, one is whole."""
    if is_whole(out / RESUME):
        move_checkpoint(out / RESUME, out / PREVIOUS)
    save_checkpoint(out / RESUME, content)


def load_resume(out: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The newest undamaged state of the training `identity`, None if `out` has none; of another one is a UserError.

    A damaged newest state is named on stderr and the previous one taken; if that is damaged too, it is a UserError.
    """
    paths = [out / name for name in (RESUME, PREVIOUS) if (out / name).exists()]
    for path in paths:
        try:
            content = load_checkpoint(path)
        except UserError as error:
            if path == paths[-1]:
                raise UserError(f"{error} --fresh starts afresh.") from error
            print(f"WARNING: {error} Going on from {out / PREVIOUS}.", file=sys.stderr)
            continue
        require_same_run(content["identity"], identity, path)
        return content
    return None


def remove_resume(out: Path) -> None:
    remove_checkpoint(out / RESUME)
    remove_checkpoint(out / PREVIOUS)


def require_same_run(saved: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    """UserError that names what differs between the training of a resume file and the present one."""
    pairs = _flat(saved), _flat(wanted)
    differing = sorted(key for key in pairs[0] | pairs[1] if pairs[0].get(key) != pairs[1].get(key))
    if differing:
        named = ", ".join(f"{key} {pairs[0].get(key)} there, {pairs[1].get(key)} here" for key in differing[:3])
        raise UserError(
            f"{path} is of another run ({named}). Give --fresh (or remove it) to start afresh, or another --out."
        )


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    nested = {key: value if isinstance(value, dict) else {"": value} for key, value in values.items()}
    return {f"{key}.{name}".rstrip("."): item for key, value in nested.items() for name, item in value.items()}
