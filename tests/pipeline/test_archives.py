"""Archives, group A of the catalogue: nothing lands outside, nothing swells, nothing half done passes for done."""

import gzip
import io
import os
import signal
import stat
import tarfile
import zipfile

import pytest

from pipeline import archives
from pipeline.archives import UNPACKED, gunzip, list_members, read_members, unpack, unpack_once
from pipeline.errors import CaseError, UserError

ANY = r"(?s).*\.nii\.gz"


def make_zip(path, members, *, links=(), mode=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", mode) as bundle:
        for name, content in members:
            bundle.writestr(name, content)
        for name, kind in links:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (kind | 0o777) << 16
            bundle.writestr(info, "/etc/passwd")
    return path


def make_tar(path, members, *, links=()):
    with tarfile.open(path, "w:gz") as bundle:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
        for name, kind in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            bundle.addfile(info)
    return path


MAKERS = [("a.zip", make_zip), ("a.tar.gz", make_tar)]


@pytest.mark.parametrize(("name", "make"), MAKERS)
def test_only_what_matches_is_unpacked_under_names_of_our_own(tmp_path, name, make):
    archive = make(tmp_path / name, [("x/b.nii.gz", b"b"), ("x/b.nii.gz.bak", b"no"), ("x/a.nii.gz", b"a")])
    written = unpack(archive, ANY, tmp_path / "out")
    assert [path.name for path in written] == ["0001.nii.gz", "0002.nii.gz"]
    assert [path.read_bytes() for path in written] == [b"b", b"a"]
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.parametrize(("archive", "make"), MAKERS)
@pytest.mark.parametrize("name", ["../x.nii.gz", "/tmp/x.nii.gz", "a/../../x.nii.gz", "a\\..\\x.nii.gz", "c:x.nii.gz"])
def test_a01_names_that_leave_the_folder_are_refused(tmp_path, archive, make, name):
    path = make(tmp_path / archive, [("good.nii.gz", b"g"), (name, b"evil")])
    for step in (unpack, unpack_once):
        with pytest.raises(UserError, match="has a name that could leave its folder. The archive is refused"):
            step(path, ANY, tmp_path / "in/out")
    assert {item.name for item in tmp_path.iterdir()} <= {archive, "in"}
    assert {item.name for item in tmp_path.glob("in/*")} <= {"out"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE])
def test_a01_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    path = make_tar(tmp_path / "a.tar.gz", [], links=[("x.nii.gz", kind)])
    with pytest.raises(UserError, match=r"member 'x.nii.gz' is a link, a device"):
        unpack(path, ANY, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_a01_links_in_a_zip_are_refused(tmp_path):
    path = make_zip(tmp_path / "a.zip", [], links=[("x.nii.gz", stat.S_IFLNK)])
    with pytest.raises(UserError, match=r"member 'x.nii.gz' is a link"):
        list_members(path, ANY)


def test_a01_what_nobody_wants_does_no_harm(tmp_path):
    path = make_tar(
        tmp_path / "a.tar.gz", [("../evil.txt", b"x"), ("ct.nii.gz", b"ct")], links=[("l", tarfile.SYMTYPE)]
    )
    assert [file.read_bytes() for file in unpack(path, ANY, tmp_path / "out")] == [b"ct"]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.tar.gz", "out"]


@pytest.mark.parametrize(("archive", "make"), MAKERS)
def test_a02_a_bomb_is_refused_before_anything_is_written(tmp_path, archive, make):
    path = make(tmp_path / archive, [("x.nii.gz", bytes(12 << 20))])
    with pytest.raises(UserError, match=r"inflates 1\d\d\d-fold; expected at most 1000"):
        unpack(path, ANY, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_a02_a_bomb_is_refused_when_one_member_is_read(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("x.nii.gz", bytes(12 << 20))])
    with pytest.raises(UserError, match="-fold"):
        list(read_members(path, ["x.nii.gz"]))


def test_a02_a_bomb_in_many_small_pieces_is_refused(tmp_path):
    path = make_tar(tmp_path / "a.tar.gz", [(f"{n}.nii.gz", bytes(3 << 20)) for n in range(20)])
    with pytest.raises(UserError, match="-fold; expected at most 1000"):
        unpack(path, ANY, tmp_path / "out")


@pytest.mark.parametrize(("archive", "make"), MAKERS)
def test_a02_a_huge_member_is_refused(tmp_path, monkeypatch, archive, make):
    monkeypatch.setattr(archives, "MEMBER_LIMIT", 9)
    path = make(tmp_path / archive, [("x.nii.gz", b"0123456789")])
    with pytest.raises(UserError, match="has 10 bytes; expected at most 9"):
        unpack(path, ANY, tmp_path / "out")


def test_a02_an_empty_mask_is_no_bomb(tmp_path):
    content = gzip.compress(bytes(50 << 20))
    packs_well = bytes((1 << 20) - 1)
    path = make_zip(tmp_path / "a.zip", [("x.nii.gz", content), ("y.nii.gz", packs_well)])
    assert [data for _, data in read_members(path, ["x.nii.gz", "y.nii.gz"])] == [content, packs_well]


@pytest.mark.parametrize("second", ["ct.nii.gz", "CT.nii.gz"])
@pytest.mark.parametrize(("archive", "make"), MAKERS)
def test_a03_two_members_of_one_name_are_refused(tmp_path, archive, make, second):
    with pytest.warns(UserWarning) if second == "ct.nii.gz" and archive == "a.zip" else _nothing():
        path = make(tmp_path / archive, [("ct.nii.gz", b"1"), (second, b"2")])
    with pytest.raises(UserError, match="'ct.nii.gz' would be the same file"):
        unpack(path, ANY, tmp_path / "out")


def test_a03_two_folders_with_one_name_in_them_are_refused(tmp_path):
    path = make_tar(tmp_path / "a.tar.gz", [("a/ct.nii.gz", b"1"), ("b/CT.nii.gz", b"2")])
    with pytest.raises(UserError, match="'ct.nii.gz' would be the same file"):
        unpack_once(path, ANY, tmp_path / "out")


def test_a04_a_killed_unpacking_is_done_again(tmp_path):
    path = make_tar(tmp_path / "a.tar.gz", [(f"x/{n}.nii.gz", b"%d" % n) for n in range(3)])
    pid = os.fork()
    if not pid:
        written = archives._write

        def killed(stream, path, archive):
            written(stream, path, archive)
            os.kill(os.getpid(), signal.SIGKILL)

        archives._write = killed
        unpack_once(path, ANY, tmp_path / "out")
        os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["0.nii.gz"]
    (tmp_path / "out/0.nii.gz").write_bytes(b"half")
    (tmp_path / "out/stray.nii.gz").write_bytes(b"of an earlier version")
    found = unpack_once(path, ANY, tmp_path / "out")
    assert {name: file.read_bytes() for name, file in found.items()} == {f"{n}.nii.gz": b"%d" % n for n in range(3)}
    assert not (tmp_path / "out/stray.nii.gz").exists()
    path.unlink()
    assert unpack_once(path, ANY, tmp_path / "out").keys() == found.keys()
    (tmp_path / "out" / UNPACKED).write_text("[")
    with pytest.raises(FileNotFoundError):
        unpack_once(path, ANY, tmp_path / "out")


def test_one_damaged_member_of_a_zip_costs_only_its_case(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("a.nii.gz", b"first" * 50), ("b.nii.gz", b"other")], mode=zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"firstfirst", b"firstfirsT", 1))
    with pytest.raises(CaseError, match="E_ARCHIVE: a file of this case is damaged inside the archive"):
        list(read_members(path, ["a.nii.gz"]))
    with pytest.raises(CaseError, match="E_ARCHIVE"):
        unpack(path, ANY, tmp_path / "out")
    assert list(read_members(path, ["b.nii.gz"])) == [("b.nii.gz", b"other")]
    with pytest.raises(CaseError, match="does not hold a file that belongs to this case"):
        list(read_members(path, ["c.nii.gz"]))


@pytest.mark.parametrize(("archive", "make"), MAKERS)
@pytest.mark.parametrize("keep", [0.3, 0.95])
def test_an_archive_that_is_cut_off_is_named(tmp_path, archive, make, keep):
    path = make(tmp_path / archive, [("x.nii.gz", os.urandom(40_000)), ("y.nii.gz", os.urandom(40_000))])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(UserError, match=f"{archive} is damaged or incomplete .* download it again"):
        unpack_once(path, ANY, tmp_path / "out")
    assert not (tmp_path / "out" / UNPACKED).exists()


def test_an_encrypted_member_is_refused(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("x.nii.gz", b"x")], mode=zipfile.ZIP_STORED)
    raw = bytearray(path.read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(UserError, match="encrypted"):
        list_members(path, ANY)


def test_members_of_equal_content_have_equal_keys(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("a.nii.gz", b"same"), ("b.nii.gz", b"same"), ("c.nii.gz", b"else")])
    first, second, third = list_members(path, ANY)
    assert first.key == second.key != third.key and first.size == 4


def test_gunzip_reads_to_the_end_with_the_checksum():
    packed = gzip.compress(b"abc" * 1000)
    assert gunzip(packed, 3000) == b"abc" * 1000
    assert gunzip(gzip.compress(b"a") + gzip.compress(b"b") + bytes(8), 2) == b"ab"
    for spoilt, limit, code in [
        (packed[:-1], 3000, "E_GZIP_TRUNCATED"),
        (packed[:-8] + bytes(8), 3000, "E_GZIP_CRC"),
        (packed, 2999, "E_TOO_LARGE"),
        (gzip.compress(b"a") * 3, 2, "E_TOO_LARGE"),
        (b"<html>", 3000, "E_NOT_NIFTI"),
    ]:
        with pytest.raises(CaseError, match=code):
            gunzip(spoilt, limit)


def _nothing():
    from contextlib import nullcontext

    return nullcontext()
