"""Every fault of a server, through every public source that is downloaded, to shards labelled by name."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from pipeline.__main__ import EXIT_TRANSIENT, main
from pipeline.sources import SOURCES, get_edition
from tests.faulty_server import Faults
from tests.miniatures import totalsegmentator_members, verse_members, write_zip
from tests.public_sets import SMALL, TOTAL, VERSE, fetch, labelled, pelvis_archives

FAULTS = {
    "cut at 40 %": {"cut_at": 0.4, "cuts": 1},
    "no Range": {"cut_at": 0.4, "cuts": 1, "ranges": False},
    "429 with Retry-After": {"refuse": (429, "3"), "refusals": 2},
    "another hash": {"spoil": 99, "spoil_at": 0.2},
    "HTML": {"page": True},
    "mirror down": {},
}
STOPS = {"another hash", "HTML"}
PUBLISHES_NO_HASH = {"verse"}


def publish(source, published):
    """Put a miniature on the server: version, a case, and structures that it is labelled for."""
    if source == "totalsegmentator":
        write_zip(published.path(SMALL), totalsegmentator_members(TOTAL))
        published.edition(source, "2.0.1-small")
        return "2.0.1-small", "s0011", ["liver", "heart", "sternum"]
    if source == "verse":
        for name, (prefix, scans) in VERSE.items():
            write_zip(published.path(name), verse_members(prefix, scans))
        published.edition(source, "2020")
        return "2020", "sub-verse401_split-verse254", ["vertebrae"]
    pelvis_archives(published)
    return "6+7", "CLINIC_0002", ["hip", "sacrum"]


def put_a_dead_mirror_first(source, version, monkeypatch):
    editions = SOURCES[source].editions
    files = tuple(
        replace(file, urls=(f"http://127.0.0.1:9/{file.name}", *file.urls)) for file in editions[version].files
    )
    changed = {**editions, version: replace(editions[version], files=files)}
    monkeypatch.setitem(SOURCES, source, replace(SOURCES[source], editions=changed))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("source", ["totalsegmentator", "verse", "ctpelvic1k"])
def test_shards_are_right_whatever_the_server_does(tmp_path, server, published, monkeypatch, capsys, source, fault):
    version, case, structures = publish(source, published)
    vars(server.faults).update(FAULTS[fault])
    if fault == "mirror down":
        put_a_dead_mirror_first(source, version, monkeypatch)
    archives, listed = tmp_path / "archives", tmp_path / f"{source}.json"
    command = ["index", "--source", source, "--version", version, "--archives", str(archives), "--out", str(listed)]
    if fault in STOPS:
        no_hash = fault == "another hash" and source in PUBLISHES_NO_HASH
        assert main(command) == (EXIT_TRANSIENT if no_hash else 2)
        error = capsys.readouterr().err
        assert "ERROR: " in error and "Traceback" not in error
        assert not listed.exists() and not [path for path in archives.glob("*") if not path.name.endswith(".json")]
        server.faults = Faults()
    assert main(command) == 0

    assert fetch(tmp_path, source, version, case)["status"] == "ok"
    masks, _, _ = labelled(tmp_path, case, structures)
    record, xrays, shard = tmp_path / "label" / case / "case.json", tmp_path / "project", tmp_path / "shard.h5"
    cone = ["--beam", "cone", "--detector-px", "8", "8", "--pixel-mm", "20", "--out", str(xrays / f"cone/{case}.h5")]
    assert main(["project", str(record), *cone]) == 0
    assert main(["shard", str(record), "--projections", str(xrays), "--simulators", "cone", "--out", str(shard)]) == 0
    with h5py.File(shard) as file:
        assert file["label"].attrs["flag_meanings"].split() == ["background", *structures]
        for value, name in enumerate(structures, 1):
            assert masks[name].any()
            np.testing.assert_array_equal(file["label"][0] == value, masks[name])
        assert file.attrs["license"] == get_edition(source, version)[1].license
