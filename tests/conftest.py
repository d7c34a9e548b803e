"""A server with faults, and public data sets in miniature on it."""

import pytest

from pipeline import download
from tests.faulty_server import serve
from tests.miniatures import Published


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "_sleep", lambda _: None)
    (tmp_path / "served").mkdir()
    with serve(tmp_path / "served") as running:
        yield running


@pytest.fixture
def published(server, monkeypatch):
    return Published(server, monkeypatch)
