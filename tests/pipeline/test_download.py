"""Downloads, group D of the catalogue: what a bad network may do, and what must never come of it."""

import hashlib
import multiprocessing
import os
import random
import signal
import time
from collections import namedtuple

import pytest

from pipeline import download
from pipeline.download import ATTEMPTS, fetch_url
from pipeline.errors import TransientError, UserError
from tests.faulty_server import serve

BODY = b"PK\x03\x04" + random.Random(1).randbytes(3_000_000)
MD5 = hashlib.md5(BODY).hexdigest()
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()
    (tmp_path / "served/a.zip").write_bytes(BODY)
    with serve(tmp_path / "served") as running:
        yield running


@pytest.fixture
def waits(monkeypatch):
    """Seconds that the downloader would have waited."""
    waited = []
    monkeypatch.setattr(download, "_sleep", waited.append)
    return waited


def fetch(server, tmp_path, *, urls=(), **options):
    return fetch_url(urls or (server.url("a.zip"),), tmp_path / "out/a.zip", **options)


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").iterdir())


def ranges(server):
    return [headers.get("Range") for _, headers in server.faults.requests]


def test_a_file_arrives_whole_with_nothing_beside_it(server, tmp_path, waits):
    path = fetch(server, tmp_path, size=len(BODY), md5=MD5, sha256=SHA256)
    assert path.read_bytes() == BODY and left(tmp_path) == ["a.zip"] and waits == []


def test_d01_a_connection_cut_at_40_percent_goes_on_inside_the_file(server, tmp_path, waits):
    server.faults.cut_at, server.faults.cuts = 0.4, 1
    assert fetch(server, tmp_path, size=len(BODY), md5=MD5).read_bytes() == BODY
    assert ranges(server) == [None, f"bytes={int(len(BODY) * 0.4)}-"]
    assert server.faults.requests[1][1]["If-Range"] == '"v1"'
    assert server.faults.sent == len(BODY) and left(tmp_path) == ["a.zip"]


def test_d01_a_file_that_changed_meanwhile_is_started_anew(server, tmp_path, waits):
    """No hash is known: only the ETag tells that the rest would be of another file."""
    server.faults.cut_at, server.faults.cuts = 0.4, ATTEMPTS
    with pytest.raises(TransientError, match="after 1200001 of 3000004 bytes"):
        fetch(server, tmp_path)
    other = b"PK\x03\x04" + bytes(3_000_000)
    (server.folder / "a.zip").write_bytes(other)
    server.faults.etag = '"v2"'
    assert fetch(server, tmp_path).read_bytes() == other


def test_d01_without_etag_and_hash_a_part_is_never_continued(server, tmp_path, waits):
    server.faults.etag = 'W/"weak"'
    server.faults.cut_at, server.faults.cuts = 0.4, 1
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert ranges(server) == [None, None]


def test_d01_a_wrong_content_range_is_not_accepted(server, tmp_path, waits):
    server.faults.cut_at, server.faults.cuts, server.faults.wrong_range = 0.4, 1, True
    with pytest.raises(UserError, match="answers with the range 'bytes 1200002-3000003/3000004'"):
        fetch(server, tmp_path, md5=MD5)
    assert not (tmp_path / "out/a.zip").exists()


def test_d02_a_server_without_range_starts_again(server, tmp_path, waits):
    server.faults.cut_at, server.faults.cuts, server.faults.ranges = 0.4, 1, False
    assert fetch(server, tmp_path, size=len(BODY), md5=MD5).read_bytes() == BODY
    assert ranges(server)[1] is not None and server.faults.sent == int(len(BODY) * 0.4) + len(BODY)


def test_d03_retry_after_is_waited_for(server, tmp_path, waits):
    server.faults.refuse, server.faults.refusals = (429, "7"), 2
    assert fetch(server, tmp_path, md5=MD5).read_bytes() == BODY
    assert waits == [7.0, 7.0] and len(server.faults.requests) == 3


def test_d03_a_date_is_a_time_to_wait_too(server, tmp_path, waits):
    server.faults.refuse, server.faults.refusals = (503, "Fri, 01 Jan 2100 00:00:00 GMT"), 1
    with pytest.raises(TransientError, match="HTTP 503, asks to come back in"):
        fetch(server, tmp_path)
    assert len(server.faults.requests) == 1 and waits == []


def test_d03_no_retry_storm(server, tmp_path, waits):
    server.faults.refuse, server.faults.refusals = (503, ""), 1000
    with pytest.raises(TransientError, match="127.0.0.1: HTTP 503.*Run the same command again"):
        fetch(server, tmp_path)
    assert len(server.faults.requests) == ATTEMPTS and left(tmp_path) == []
    assert len(waits) == ATTEMPTS - 1
    assert all(2**n / 2 <= waited <= 2**n for n, waited in enumerate(waits, start=1))


def test_d03_progress_renews_the_patience(server, tmp_path, waits):
    """23 GB in many pieces: what counts is how often it fails without getting on."""
    big = b"PK\x03\x04" + bytes(ATTEMPTS * 3 << 20)
    (server.folder / "a.zip").write_bytes(big)
    step, original = iter(range(2, 100)), server._send

    def cut_every_tenth(request, body, start, size):
        server.faults.cut_at, server.faults.cuts = next(step) / 10, 1
        original(request, body, start, size)

    server._send = cut_every_tenth
    assert fetch(server, tmp_path, size=len(big)).read_bytes() == big
    assert len(server.faults.requests) > ATTEMPTS


@pytest.mark.parametrize("hashes", [{"md5": "0" * 32}, {"sha256": "0" * 64}])
def test_d04_a_wrong_hash_publishes_nothing(server, tmp_path, waits, hashes):
    with pytest.raises(UserError, match=rf"sent a file with {next(iter(hashes))} .*, expected 0000.*`archives`"):
        fetch(server, tmp_path, **hashes)
    assert left(tmp_path) == [] and len(server.faults.requests) == 2


def test_d04_one_spoilt_transfer_is_repeated_whole(server, tmp_path, waits):
    server.faults.spoil = 1
    assert fetch(server, tmp_path, md5=MD5).read_bytes() == BODY
    assert ranges(server) == [None, None]


def test_d04_another_size_is_refused_before_its_bytes(server, tmp_path, waits):
    with pytest.raises(UserError, match=f"offers {len(BODY)} bytes, expected 17"):
        fetch(server, tmp_path, size=17)
    assert left(tmp_path) == []


def test_d04_more_bytes_than_announced_are_refused(server, tmp_path, waits):
    server.faults.lengthless = True
    with pytest.raises(UserError, match="sends more than 1000 bytes"):
        fetch(server, tmp_path, size=1000)
    assert left(tmp_path) == []
    assert fetch(server, tmp_path, md5=MD5).read_bytes() == BODY


def test_d05_a_web_page_is_not_a_zip(server, tmp_path, waits):
    server.faults.page = True
    with pytest.raises(UserError, match=r"sent a web page that is not a \.zip file"):
        fetch(server, tmp_path)
    assert left(tmp_path) == [] and len(server.faults.requests) == 1


def test_d05_a_web_page_does_not_cost_what_has_arrived(server, tmp_path, waits):
    server.faults.cut_at, server.faults.cuts = 0.4, ATTEMPTS
    with pytest.raises(TransientError):
        fetch(server, tmp_path, md5=MD5)
    server.faults.page = True
    with pytest.raises(UserError, match="a web page"):
        fetch(server, tmp_path, md5=MD5)
    server.faults.page = False
    server.faults.sent = 0
    assert fetch(server, tmp_path, md5=MD5).read_bytes() == BODY
    assert server.faults.sent == len(BODY) - int(len(BODY) * 0.4)


def _fetch_in_child(url, path):
    fetch_url((url,), path, md5=MD5)


def test_d06_a_killed_download_goes_on_in_the_next_process(server, tmp_path):
    server.faults.pause_at = 0.6
    child = multiprocessing.get_context("fork").Process(
        target=_fetch_in_child, args=(server.url("a.zip"), tmp_path / "out/a.zip")
    )
    child.start()
    part = tmp_path / "out/a.zip.part"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not part.exists() or part.stat().st_size < len(BODY) // 2):
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    have = part.stat().st_size
    assert len(BODY) // 2 <= have <= len(BODY) * 0.6 and not (tmp_path / "out/a.zip").exists()
    server.faults.pause_at = 0.0
    assert fetch(server, tmp_path, md5=MD5).read_bytes() == BODY
    assert ranges(server)[1] == f"bytes={have}-" and left(tmp_path) == ["a.zip"]


def test_d06_a_part_that_was_complete_when_the_process_died(server, tmp_path, waits):
    """With a known size and hash nothing is sent again; without, the server has no more bytes to give (416)."""
    (tmp_path / "out").mkdir()
    for known in (True, False):
        (tmp_path / "out/a.zip.part").write_bytes(BODY)
        (tmp_path / "out/a.zip.part.json").write_text(f'{{"url": "{server.url("a.zip")}", "etag": "\\"v1\\""}}')
        assert fetch(server, tmp_path, size=len(BODY) if known else 0, md5=MD5 if known else "").read_bytes() == BODY
        assert len(server.faults.requests) == (0 if known else 2)
        (tmp_path / "out/a.zip").unlink()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("free", [2_000_000, 3_200_000])
def test_d07_a_full_disk_is_noticed_before_the_first_byte(server, tmp_path, waits, monkeypatch, known, free):
    """A tenth more than the file must be free."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage(10**9, 10**9 - free, free))
    with pytest.raises(TransientError, match=rf"a\.zip needs 0\.003 GB of disk, 0\.00{free // 10**6} GB are free"):
        fetch(server, tmp_path, size=len(BODY) if known else 0)
    assert (len(server.faults.requests) == 0) == known
    assert not (tmp_path / "out/a.zip.part").exists() or not (tmp_path / "out/a.zip.part").stat().st_size


def test_d08_the_next_mirror_is_asked(server, tmp_path, waits):
    urls = ("http://127.0.0.1:9/a.zip", server.url("gone.zip"), server.url("a.zip"))
    assert fetch(server, tmp_path, urls=urls, md5=MD5).read_bytes() == BODY
    assert [path for path, _ in server.faults.requests] == ["/gone.zip", "/a.zip"]


def test_d08_without_a_mirror_left_each_is_named(server, tmp_path, waits):
    with pytest.raises(TransientError, match=r"127\.0\.0\.1: .*refused.*; 127\.0\.0\.1: HTTP 404"):
        fetch(server, tmp_path, urls=("http://127.0.0.1:9/a.zip", server.url("gone.zip")))


def test_d08_a_part_of_another_mirror_is_continued_only_under_a_hash(server, tmp_path, waits):
    server.faults.cut_at, server.faults.cuts = 0.4, 2
    urls = (server.url("a.zip?first"), server.url("a.zip"))
    original = server.answer

    def without_query(request):
        request.path = request.path.partition("?")[0]
        original(request)

    server.answer = without_query
    assert fetch(server, tmp_path, urls=urls, md5=MD5).read_bytes() == BODY
    assert "If-Range" not in server.faults.requests[2][1] and ranges(server)[2] == "bytes=1200001-"


def test_d09_a_file_that_is_there_needs_no_network(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.zip").write_bytes(b"here")
    assert fetch_url(("https://invalid.invalid/a.zip",), tmp_path / "out/a.zip").read_bytes() == b"here"
    assert left(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("url", ["http://example.org/a.zip", "ftp://example.org/a.zip", "file:///etc/passwd"])
def test_only_https_leaves_this_machine(url, tmp_path, server, waits):
    with pytest.raises(UserError, match="is not https"):
        fetch_url((url,), tmp_path / "out/a.zip")
    server.faults.location = url
    with pytest.raises(UserError, match="is not https|HTTP 302"):
        fetch(server, tmp_path)
    assert not (tmp_path / "out/a.zip").exists()


def test_two_processes_download_once(server, tmp_path):
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=_fetch_in_child, args=(server.url("a.zip"), tmp_path / "out/a.zip")) for _ in range(3)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert (tmp_path / "out/a.zip").read_bytes() == BODY and left(tmp_path) == ["a.zip"]
    assert len(server.faults.requests) == 1
