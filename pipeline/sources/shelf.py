"""The archives of a run: found on disk or downloaded, checked once, pinned for ever."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.archives import damaged_member
from pipeline.download import differing_hash, fetch_url
from pipeline.errors import TransientError, UserError
from pipeline.files import file_sha256, write_json


@dataclass(frozen=True)
class RemoteFile:
    """A file of a public data set as its publisher describes it; without a hash it is pinned when first used.

    `urls` may be empty: then it must be on disk, and `how` says where people get it.
    """

    name: str
    urls: tuple[str, ...] = ()
    size: int = 0
    md5: str = ""
    sha256: str = ""
    how: str = ""
    refused_md5: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Shelf:
    """Archives in `folder`. What lies in `given` is linked there instead of downloaded."""

    folder: Path
    given: Path | None = None

    def get(self, file: RemoteFile) -> Path:
        """The archive, checked. A later call believes a file of unchanged size and time."""
        path = self.folder / file.name
        if path.is_symlink() and self.given and (self.given / file.name).exists():
            path.unlink()
        elif path.is_symlink() and not path.exists():
            raise UserError(f"{file.name} is no longer where it was. Give its folder again as `archives`.")
        checked = not path.exists() and self._provide(file, path)
        stat = path.stat()
        kept = self._kept(file)
        if (kept.get("bytes"), kept.get("mtime_ns")) != (stat.st_size, stat.st_mtime_ns):
            sha256 = file.sha256 if checked else self._check(file, path, kept.get("sha256", ""))
            pin = {"name": file.name, "urls": list(file.urls), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
            write_json(self._pin_path(file), pin | {"md5": file.md5, "sha256": sha256})
        return path

    def _provide(self, file: RemoteFile, path: Path) -> bool:
        """Link or download the file; whether its hash has been checked on the way."""
        if self.given and (self.given / file.name).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to((self.given / file.name).resolve())
            return False
        if not file.urls:
            raise UserError(f"{file.name} cannot be downloaded by a program. {file.how}")
        fetch_url(file.urls, path, size=file.size, md5=file.md5, sha256=file.sha256)
        return bool(file.md5 or file.sha256)

    def _check(self, file: RemoteFile, path: Path, pinned: str) -> str:
        """The file's sha256 as published or pinned before, or as it is now; UserError if it is another file."""
        if not (file.md5 or file.sha256):
            if not pinned:
                self._require_whole(file, path)
            sha256 = file_sha256(path)
            if pinned and sha256 != pinned:
                raise UserError(
                    f"{file.name} has sha256 {sha256}, but the one first used here had {pinned}. Its publisher states "
                    f"none: find out which is right, then delete the other one, and {self._pin_path(file).name}."
                )
            return sha256
        differs = differing_hash(path, {"md5": file.md5, "sha256": file.sha256})
        if differs:
            for md5, reason in file.refused_md5.items():
                if not differing_hash(path, {"md5": md5}):
                    raise UserError(f"{file.name} is refused: {reason}")
            raise UserError(
                f"{file.name} has {differs}. It is damaged or of another version: delete it and get it anew."
            )
        return file.sha256

    def _require_whole(self, file: RemoteFile, path: Path) -> None:
        """Before an archive without a published hash is pinned: does all that it holds match the checksums inside?"""
        member = damaged_member(path)
        if not member:
            return
        if path.is_symlink():
            raise UserError(f"{file.name} is damaged (at {member}). Delete it and get it anew.")
        path.unlink()
        raise TransientError(f"{file.name} arrived damaged (at {member}) and was deleted. Run the same command again.")

    def _kept(self, file: RemoteFile) -> dict:
        try:
            return json.loads(self._pin_path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def _pin_path(self, file: RemoteFile) -> Path:
        return self.folder / f"{file.name}.lock.json"
