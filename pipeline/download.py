"""Large files over bad networks: resumed inside the file, checked as a whole, published in one step.

Public archives reach 23 GB; their servers drop long transfers and answer 429 to the impatient.
"""

from __future__ import annotations

import email.utils
import errno
import fcntl
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO

from tqdm import tqdm

from pipeline.errors import TransientError, UserError
from pipeline.files import sync_folder, write_json

ATTEMPTS = 6
"""Failures in a row, with less than 1 MiB of progress in between, before the last mirror is given up."""
_ATTEMPTS_BEFORE_NEXT_MIRROR = 2
_CHUNK = 1 << 20
_TIMEOUT_S = 60
_LONGEST_WAIT_S = 900.0
_SPARE = 1.1
_MAGIC = {".zip": b"PK", ".gz": b"\x1f\x8b", ".tgz": b"\x1f\x8b"}
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)

_sleep = time.sleep


class _FailedAttempt(Exception):
    """Why one attempt failed, and whether another one at the same address may help."""

    def __init__(self, why: str, *, again: bool, wait_s: float | None = None):
        super().__init__(why)
        self.again = again
        self.wait_s = wait_s


def fetch_url(urls: tuple[str, ...], path: Path, *, size: int = 0, md5: str = "", sha256: str = "") -> Path:
    """Make `path` the file behind one of `urls` (mirrors, best first); at once if it is there already.

    An interrupted transfer goes on where it ended, also in another process. What is published had the size and hashes
    that are given. TransientError if the network failed, UserError if every mirror offered something else.
    """
    for url in urls:
        check_scheme(url)
    failures = []
    with _owned(path.with_name(path.name + ".part")) as part:
        if path.exists():  # before, or by another process while this one waited
            _discard(part)
            return path
        for url in urls:
            attempts = ATTEMPTS if url == urls[-1] else _ATTEMPTS_BEFORE_NEXT_MIRROR
            failure = _from_mirror(url, part, size, {"md5": md5, "sha256": sha256}, attempts)
            if not failure:
                os.fsync(part.fileno())
                os.replace(part.name, path)
                sync_folder(path.parent)
                _validator_path(part).unlink(missing_ok=True)
                return path
            failures.append(failure)
        if not os.fstat(part.fileno()).st_size:
            _discard(part)
    tried = "; ".join(f"{urllib.parse.urlsplit(url).hostname}: {why}" for url, why in zip(urls, failures, strict=True))
    if any(failure.again for failure in failures):
        raise TransientError(f"{path.name} could not be downloaded ({tried}). Run the same command again: it goes on.")
    raise UserError(
        f"{path.name} could not be downloaded ({tried}). Download it by other means and name its folder as `archives`."
    )


def check_scheme(url: str) -> None:
    """https only, except to this machine."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise UserError(f"{parts.scheme}://{parts.hostname}/... is not https; expected https addresses only.")


def check_space(folder: Path, need: int, what: str) -> None:
    """TransientError with both numbers unless `folder` has room for `need` bytes and a tenth more."""
    free = shutil.disk_usage(folder).free
    if free < need * _SPARE:
        raise TransientError(
            f"{what} needs {need * _SPARE / 1e9:.3f} GB of disk, {free / 1e9:.3f} GB are free. Make room, then run the same "
            "command again."
        )


def differing_hash(path: Path, expected: dict[str, str]) -> str:
    """What of md5 and sha256 is not as expected, in words; empty if all is well. An empty digest is not checked."""
    for name, digest in expected.items():
        if digest:
            with path.open("rb") as handle:
                found = hashlib.file_digest(handle, name).hexdigest()
            if found != digest:
                return f"{name} {found}, expected {digest}"
    return ""


@contextmanager
def _owned(part: Path) -> Iterator[IO[bytes]]:
    """The partial file, open for appending, while no other process writes to it."""
    part.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with part.open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if part.exists() and os.path.samestat(part.stat(), os.fstat(handle.fileno())):
                yield handle
                return


def _validator_path(part: IO[bytes]) -> Path:
    """Where the address and the ETag of the partial file are kept."""
    return Path(part.name + ".json")


def _discard(part: IO[bytes]) -> None:
    Path(part.name).unlink()
    _validator_path(part).unlink(missing_ok=True)


def _from_mirror(url: str, part: IO[bytes], size: int, hashes: dict[str, str], attempts: int) -> _FailedAttempt | None:
    """Complete the part from one mirror; None, or why it did not work."""
    failed = wrong_files = 0
    while True:
        before = os.fstat(part.fileno()).st_size
        try:
            _transfer(url, part, size, checked=any(hashes.values()))
            part.flush()
            differs = differing_hash(Path(part.name), hashes)
            if not differs:
                return None
            part.truncate(0)
            wrong_files += 1
            raise _FailedAttempt(f"sent a file with {differs}", again=wrong_files < 2)
        except _FailedAttempt as error:
            failure = error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            failure = _FailedAttempt(str(getattr(error, "reason", "") or error) or type(error).__name__, again=True)
        failed = 1 if os.fstat(part.fileno()).st_size - before > _CHUNK else failed + 1
        if not failure.again or failed >= attempts:
            return failure
        wait_s = min(2.0**failed, 60.0) * random.uniform(0.5, 1.0) if failure.wait_s is None else failure.wait_s
        if wait_s > _LONGEST_WAIT_S:
            return _FailedAttempt(f"{failure}, asks to come back in {wait_s:.0f} s", again=True)
        print(f"{Path(part.name).stem}: {failure}; next attempt in {wait_s:.0f} s", file=sys.stderr)
        _sleep(wait_s)


def _transfer(url: str, part: IO[bytes], size: int, *, checked: bool) -> None:
    """One request that appends to the part, or starts it anew where the server cannot or will not go on.

    A part goes on only if the server confirms that it is of the same file (If-Range), or if a hash will tell (`checked`).
    """
    name = Path(part.name).stem
    validator = _read_validator(part, url)
    have = os.fstat(part.fileno()).st_size
    if have and not validator and not checked:
        part.truncate(0)
        have = 0
    if size and have == size:
        return
    check_space(Path(part.name).parent, max(size - have, 0), name)
    headers = {"User-Agent": "xr2ct", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": validator} if validator else {})
    with _open(urllib.request.Request(url, headers=headers), part) as response:
        goes_on = response.status == 206
        if goes_on:
            total = _check_range(response.headers.get("Content-Range", ""), have)
        else:
            have, total = 0, int(response.headers.get("Content-Length") or 0)
        first = response.read(16)
        if not goes_on:
            _check_magic(name, first)
        if size and total and total != size:
            raise _FailedAttempt(f"offers {total} bytes, expected {size}", again=False)
        check_space(Path(part.name).parent, max((size or total) - have, 0), name)
        if not goes_on:  # not before: an error page must not cost what has arrived
            part.truncate(0)
            etag = response.headers.get("ETag", "")
            write_json(_validator_path(part), {"url": url, "etag": "" if etag.startswith("W/") else etag})
        _append(response, part, first, size or total, have)


def _append(response, part: IO[bytes], first: bytes, total: int, have: int) -> None:
    """The body, whose first bytes were read already; one that ends early is a failed attempt."""
    every_s = 0.2 if sys.stderr.isatty() else 30.0
    bar = tqdm(
        total=total or None, initial=have, unit="B", unit_scale=True, desc=Path(part.name).stem, mininterval=every_s
    )
    with bar:
        for chunk in chain([first], iter(lambda: response.read1(_CHUNK), b"")):
            have += len(chunk)
            if total and have > total:
                part.truncate(0)
                raise _FailedAttempt(f"sends more than {total} bytes", again=False)
            part.write(chunk)
            bar.update(len(chunk))
    part.flush()
    if have < total or not have:
        raise _FailedAttempt(f"the connection ended after {have} of {total or 'unknown'} bytes", again=True)


def _read_validator(part: IO[bytes], url: str) -> str:
    """The ETag that this address gave with the first byte of the part, or an empty string."""
    try:
        kept = json.loads(_validator_path(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return kept["etag"] if kept["url"] == url else ""


def _check_range(content_range: str, have: int) -> int:
    """The whole size that a 206 answer states, if it starts where the part ends."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", content_range)
    if not found or int(found[1]) != have:
        raise _FailedAttempt(f"answers with the range {content_range!r}, expected one from {have} on", again=False)
    return int(found[2])


def _check_magic(name: str, first: bytes) -> None:
    """Login and error pages come with status 200."""
    magic = _MAGIC.get(Path(name).suffix, b"")
    if not first.startswith(magic):
        page = "a web page" if first.lstrip()[:1] == b"<" else "something else"
        raise _FailedAttempt(f"sent {page} that is not a {Path(name).suffix} file", again=False)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, file, code, message, headers, new_url):
        check_scheme(new_url)
        return super().redirect_request(request, file, code, message, headers, new_url)


def _open(request: urllib.request.Request, part: IO[bytes]):
    try:
        return urllib.request.build_opener(_SafeRedirects).open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                part.truncate(0)
            again = error.code in _RETRIED_STATUS or error.code == 416
            wait_s = _retry_after_s(error.headers.get("Retry-After", ""))
            raise _FailedAttempt(f"HTTP {error.code}", again=again, wait_s=wait_s) from None


def _retry_after_s(value: str) -> float | None:
    """Seconds to wait by a Retry-After header, which holds seconds or a date."""
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
