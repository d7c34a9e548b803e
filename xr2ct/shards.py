"""Read `xr2ct/shard` files: CTs, labels and their X-rays. Needs h5py and NumPy; format in resources/shard.md."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from xr2ct.errors import UserError

SCHEMA = "xr2ct/shard"
MAJOR_VERSION = 1
NOT_ANNOTATED, ABSENT, CUT, COMPLETE = range(4)  # label_status; CUT = by the field of view
IGNORE = 255  # label of voxels that nobody may judge
DAMAGE = (OSError, KeyError, RuntimeError, SystemError, UnicodeDecodeError)  # what h5py raises on a broken file


@dataclass(frozen=True)
class Case:
    """One CT with its labels; `affine` maps the voxel index (x, y, z, 1) to RAS mm, arrays are (z, y, x)."""

    id: str
    subject_key: str
    dataset: str
    split: str
    derived_from: str  # the case it is a deformation of, "" for a CT as scanned
    affine: np.ndarray  # float64 (4, 4)
    ct_hu: np.ndarray  # int16 (z, y, x), -1024..3071
    label: np.ndarray  # uint8 (z, y, x), index into Shard.structures, or IGNORE
    label_status: np.ndarray  # uint8 (class,), NOT_ANNOTATED, ABSENT, CUT or COMPLETE
    qc_flags: int


@dataclass(frozen=True)
class Xray:
    """The views of one case by one simulator; `projection` maps RAS mm (x, y, z, 1) to pixel (u, v, 1) * w."""

    views: list[str]
    image: np.ndarray  # float32 (view, v, u), line integral -log(I/I0), dimensionless
    projection: np.ndarray  # float64 (view, 3, 4)
    source_mm: np.ndarray  # float64 (view, 4), homogeneous: w = 1 a focal spot, w = 0 a ray direction
    detector_mm: np.ndarray  # float64 (view, 3, 3), rows: centre of pixel (0, 0), step along v, step along u
    attrs: dict[str, Any]


class Shard:
    """One shard file, opened once per process; safe to pickle and to fork. What it refuses is a UserError."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = os.fspath(path)
        self._file: h5py.File | None = None
        self._pid = 0
        self._written: tuple[int, int] | None = None
        file = self._open()
        try:
            self.attrs: dict[str, Any] = _plain(file.attrs)
            self.structures: tuple[str, ...] = tuple(str(file["label"].attrs["flag_meanings"]).split())
            self.simulators: tuple[str, ...] = tuple(file["xray"])
            self.shape: tuple[int, ...] = file["ct"].shape  # (case, z, y, x)
        except DAMAGE as error:
            raise self._damaged("", error) from error

    def __len__(self) -> int:
        return self.shape[0]

    def case_ids(self) -> list[str]:
        return list(self._read("case/id"))

    def case_id(self, i: int) -> str:
        return self._read("case/id", i)

    def subject_key(self, i: int) -> str:
        return self._read("case/subject_key", i)

    def case(self, i: int) -> Case:
        case = {name: self._read(f"case/{name}", i) for name in ("id", "subject_key", "derived_from", "affine")}
        return Case(
            **case,
            dataset=self.attrs["dataset"],
            split=self.attrs["split"],
            ct_hu=self._read("ct", i),
            label=self._read("label", i),
            label_status=self._read("label_status", i),
            qc_flags=int(self._read("case/qc_flags", i)),
        )

    def xray(self, i: int, simulator: str) -> Xray:
        if simulator not in self.simulators:
            raise UserError(f"{self.path}: no simulator {simulator!r}. Use one of {', '.join(self.simulators)}.")
        group = f"xray/{simulator}"
        names = ("image", "projection", "source_mm", "detector_mm")
        return Xray(
            views=list(self._read(f"{group}/view")),
            attrs=_plain(self._open()[group].attrs),
            **{name: self._read(f"{group}/{name}", i) for name in names},
        )

    def _read(self, name: str, i: Any = ()) -> Any:
        file = self._open()
        try:
            dataset = file[name]
            require_chunk(dataset, i)
            return dataset.asstr()[i] if h5py.check_string_dtype(dataset.dtype) else dataset[i]
        except DAMAGE as error:
            raise self._damaged(name, error) from error

    def _damaged(self, name: str, error: Exception) -> UserError:
        return UserError(f"{self.path}: /{name} is missing or damaged ({error}). Copy or make this shard again.")

    def _open(self) -> h5py.File:
        if self._file is None or self._pid != os.getpid():
            try:
                now = os.stat(self.path)
            except OSError as error:
                raise UserError(f"{self.path}: cannot be opened ({error}). Expected a whole {SCHEMA} file.") from error
            self._written = self._written or (now.st_size, now.st_mtime_ns)
            if self._written != (now.st_size, now.st_mtime_ns):
                raise UserError(f"{self.path}: was replaced while it was in use. Start again with the new file.")
            try:  # whole chunks are read once: a chunk cache would only copy them
                file = h5py.File(self.path, "r", locking=False, rdcc_nbytes=0)
                refuse_foreign(file, self.path)
            except DAMAGE as error:
                raise UserError(f"{self.path}: cannot be opened ({error}). Expected a whole {SCHEMA} file.") from error
            self._file, self._pid = file, os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}


def open_shards(paths: Iterable[str | os.PathLike[str]]) -> list[Shard]:
    return [Shard(path) for path in paths]


def refuse_foreign(file: h5py.File, path: str) -> None:
    """UserError for a file of another format or version, an unfinished one, or one that reaches into other files."""
    attrs = _plain(file.attrs)
    schema, version = attrs.get("schema"), str(attrs.get("schema_version"))
    if schema != SCHEMA:
        raise UserError(f"{path}: schema is {schema!r}, expected {SCHEMA!r}. Give a shard file.")
    if version.split(".")[0] != str(MAJOR_VERSION):
        raise UserError(f"{path}: schema_version is {version}, expected {MAJOR_VERSION}.x. Use a matching xr2ct.")
    if attrs.get("complete") != 1:
        raise UserError(f"{path}: complete is {attrs.get('complete')}, expected 1: writing broke off. Make it again.")
    foreign = file.visititems_links(lambda name, link: None if isinstance(link, h5py.HardLink) else name)
    foreign = foreign or file.visititems(lambda name, item: name if _is_elsewhere(item) else None)
    if foreign:
        raise UserError(f"{path}: /{foreign} points outside its place (link, virtual or external data). Do not use it.")


def require_chunk(dataset: h5py.Dataset, i: Any) -> None:
    """OSError if the chunk of case `i` is not in the file: HDF5 would read it as zeros without a word."""
    if dataset.chunks and isinstance(i, int) and i < len(dataset):
        where = dataset.id.get_chunk_info_by_coord((i % len(dataset), *[0] * (dataset.ndim - 1)))
        if where.byte_offset is None:
            raise OSError(f"the chunk of case {i} is not in the file")


def _is_elsewhere(item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and bool(item.is_virtual or item.external)


def _plain(attrs: Any) -> dict[str, Any]:
    """Attributes as Python values where HDF5 has scalars, NumPy arrays elsewhere."""
    values = {name: value.item() if isinstance(value, np.generic) else value for name, value in attrs.items()}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}
