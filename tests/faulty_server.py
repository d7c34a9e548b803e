"""An HTTP server on the loopback address that serves a folder, with the faults of real servers on demand."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Faults:
    """What goes wrong; the counts go down with each answer they spoil.

    `cut_at` ends the body after that share of it, `pause_at` stops sending there until the client is gone, `refuse` gives
    (status, Retry-After), `page` answers with an HTML page, `spoil` flips a byte, `lengthless` leaves the
    size out, `etag` is what the file is known by.
    """

    cut_at: float = 0.0
    cuts: int = 0
    pause_at: float = 0.0
    ranges: bool = True
    wrong_range: bool = False
    refuse: tuple[int, str] = (429, "1")
    refusals: int = 0
    page: bool = False
    lengthless: bool = False
    spoil: int = 0
    spoil_at: float = 1.0
    etag: str = '"v1"'
    location: str = ""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    sent: int = 0


class FaultyServer:
    """`url(name)` addresses a file of `folder`; change `faults` at any time."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.faults = Faults()
        self._released = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/{name}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        faults = self.faults
        faults.requests.append((request.path, dict(request.headers)))
        if faults.location:
            return self._head(request, 302, {"Location": faults.location, "Content-Length": "0"})
        if faults.refusals:
            faults.refusals -= 1
            status, after = faults.refuse
            return self._head(request, status, {"Retry-After": after, "Content-Length": "0"})
        if faults.page:
            body = b"<!DOCTYPE html><html><title>Please log in</title></html>"
            self._head(request, 200, {"Content-Length": str(len(body))})
            request.wfile.write(body)
            return None
        path = self.folder / request.path.lstrip("/")
        if not path.is_file():
            return self._head(request, 404, {"Content-Length": "0"})
        whole = path.read_bytes()
        start = self._start(request)
        if start >= len(whole):
            return self._head(request, 416, {"Content-Length": "0", "Content-Range": f"bytes */{len(whole)}"})
        body = bytearray(whole[start:])
        if faults.spoil:
            faults.spoil -= 1
            body[min(int(len(body) * faults.spoil_at), len(body) - 1)] ^= 0xFF
        headers = {"Content-Length": str(len(body)), "ETag": faults.etag}
        if faults.lengthless:
            del headers["Content-Length"]
        if start:
            first = start + 1 if faults.wrong_range else start
            headers["Content-Range"] = f"bytes {first}-{len(whole) - 1}/{len(whole)}"
        self._head(request, 206 if start else 200, headers)
        self._send(request, bytes(body), start, len(whole))
        return None

    def _start(self, request: BaseHTTPRequestHandler) -> int:
        """Where the answer begins: at 0 if the range is not wanted, not supported, or asked of another file."""
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        same = request.headers.get("If-Range", self.faults.etag) == self.faults.etag
        return int(wanted[1]) if wanted and same and self.faults.ranges else 0

    def _send(self, request: BaseHTTPRequestHandler, body: bytes, start: int, size: int) -> None:
        faults = self.faults
        end = len(body)
        if faults.cuts:
            faults.cuts -= 1
            end = max(0, int(size * faults.cut_at) - start)
        elif faults.pause_at:
            end = max(0, int(size * faults.pause_at) - start)
        request.wfile.write(body[:end])
        faults.sent += end
        if faults.pause_at and end < len(body):
            request.wfile.flush()
            self._released.wait(30)
        request.close_connection = True

    @staticmethod
    def _head(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()


@contextmanager
def serve(folder: Path) -> Iterator[FaultyServer]:
    """A running server for the length of a test."""
    server = FaultyServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
