"""Check everything of the shard format that a reader relies on."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float
from numpy import ndarray
from tqdm import tqdm

from xr2ct.errors import UserError
from xr2ct.shards import COMPLETE, CUT, DAMAGE, IGNORE, refuse_foreign, require_chunk

HU_MIN, HU_MAX = -1024, 3071
NOT_SHARED = ("train", "validation", "test")
PIXEL_TOLERANCE, NULL_TOLERANCE, SCALE_TOLERANCE_MM = 1e-3, 1e-9, 1e-3
TEXT = "UTF-8 text"
ROOT = {
    **dict.fromkeys(("dataset", "dataset_version", "dataset_doi", "license", "attribution", "split"), str),
    **dict.fromkeys(("generator", "config_json", "config_sha256", "world", "volume_axes"), str),
    **dict.fromkeys(("shard_index", "shard_count", "n_cases", "seed"), int),
}
CASE_TEXTS = ("id", "subject_key", "source_sha256", "ct_sha256", "derived_from")


@dataclass
class Seen:
    """What must not repeat over all files: where each case id, patient and CT was met first."""

    ids: dict[str, str] = field(default_factory=dict)
    split_of: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)


Problem = tuple[str, str]
"""Path in the file, and what was found and expected there."""


def verify(paths: Sequence[Path]) -> Iterator[str]:
    """One line per problem, `FILE: PATH: what, expected`."""
    seen = Seen()
    for path in tqdm(paths, desc="verify", unit="shard"):
        for where, what in _file_problems(path, seen):
            yield f"{path}: {where}: {what}"


def _file_problems(path: Path, seen: Seen) -> Iterator[Problem]:
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield from _checks(file, str(path), seen)
    except UserError as error:
        yield "/", str(error).removeprefix(f"{path}: ")
    except DAMAGE as error:
        yield "/", f"cannot be read ({error}), expected a whole HDF5 file"


def _checks(file: h5py.File, path: str, seen: Seen) -> Iterator[Problem]:
    refuse_foreign(file, path)
    yield from _root(file)
    structure = list(dict.fromkeys(_structure(file)))  # ct and label share their scales
    yield from structure
    if not structure:  # values are only meaningful, and only safe to read, in arrays of the right kind
        yield from _values(file, path, seen)


def _root(file: h5py.File) -> Iterator[Problem]:
    for name, kind in ROOT.items():
        value = file.attrs.get(name)
        number = kind is int and isinstance(value, int | np.integer)
        if not (number or (kind is str and isinstance(value, str))):
            yield "/", f"attribute {name} is {value!r}, expected {'an integer' if kind is int else 'text'}"
    for name, expected in {"world": "RAS mm", "volume_axes": "z:S y:A x:R"}.items():
        if isinstance(file.attrs.get(name), str) and file.attrs[name] != expected:
            yield "/", f"attribute {name} is {file.attrs[name]!r}, expected {expected!r}"
    config, digest = file.attrs.get("config_json"), file.attrs.get("config_sha256")
    if isinstance(config, str) and hashlib.sha256(config.encode()).hexdigest() != digest:
        yield "/", f"attribute config_sha256 is {digest!r}, expected the sha256 of config_json"


def _structure(file: h5py.File) -> Iterator[Problem]:
    """Problems of names, types, shapes, filters and scales; an axis has the size that it has where it comes first."""
    size: dict[str, int] = {}
    for name, dtype, axes in _datasets(file):
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            yield f"/{name}", "is missing, expected a dataset"
            continue
        found = TEXT if h5py.check_string_dtype(dataset.dtype) else dataset.dtype.str
        if found.lstrip("|") != dtype:
            yield f"/{name}", f"has type {found}, expected {dtype}"
        if dataset.ndim != len(axes):
            yield f"/{name}", f"has shape {dataset.shape}, expected ({', '.join(map(str, axes))})"
            continue
        for axis, length in zip(axes, dataset.shape, strict=True):
            expected = size.setdefault(axis, length) if isinstance(axis, str) else axis
            if length != expected:
                yield f"/{name}", f"has {length} along {axis}, expected {expected}"
        if name in ("ct", "label") or name.endswith("/image"):
            yield from _big_array(dataset, axes)
    if size.get("case") != file.attrs.get("n_cases"):
        yield "/", f"attribute n_cases is {file.attrs.get('n_cases')}, expected {size.get('case')} as in /ct"
    yield from _label_classes(file, size)


def _datasets(file: h5py.File) -> Iterator[tuple[str, str, tuple[str | int, ...]]]:
    """Path, type and shape of every dataset that a reader uses; equal names of sizes mean equal sizes."""
    volume = ("case", "z", "y", "x")
    yield "ct", "<i2", volume
    yield "label", "u1", volume
    yield "label_status", "u1", ("case", "class")
    for name in CASE_TEXTS:
        yield f"case/{name}", TEXT, ("case",)
    yield "case/affine", "<f8", ("case", 4, 4)
    yield "case/source_affine", "<f8", ("case", 4, 4)
    yield "case/source_shape", "<i4", ("case", 3)
    yield "case/qc_flags", "<u4", ("case",)
    xray = file.get("xray")
    for name in xray if isinstance(xray, h5py.Group) else ("?",):
        view = f"view of {name}"
        yield f"xray/{name}/view", TEXT, (view,)
        yield f"xray/{name}/image", "<f4", ("case", view, f"v of {name}", f"u of {name}")
        yield f"xray/{name}/projection", "<f8", ("case", view, 3, 4)
        yield f"xray/{name}/source_mm", "<f8", ("case", view, 4)
        yield f"xray/{name}/detector_mm", "<f8", ("case", view, 3, 3)


def _big_array(dataset: h5py.Dataset, axes: Sequence[str | int]) -> Iterator[Problem]:
    if not dataset.fletcher32:
        yield dataset.name, "has no checksum, expected the fletcher32 filter"
    if dataset.chunks != (1, *dataset.shape[1:]):
        yield dataset.name, f"has chunks {dataset.chunks}, expected one per case: {(1, *dataset.shape[1:])}"
    for number, axis in list(enumerate(axes))[1:]:
        name = str(axis).split(" ")[0]
        if not len(dataset.dims[number]):
            yield dataset.name, f"has no dimension scale on axis {number}, expected {name}"
        elif name != "view" and not dataset.dims[number][0].attrs.get("units"):
            yield dataset.dims[number][0].name, "has no units, expected the attribute units"


def _label_classes(file: h5py.File, size: dict[str, int]) -> Iterator[Problem]:
    label = file.get("label")
    if not isinstance(label, h5py.Dataset):
        return
    meanings, values = label.attrs.get("flag_meanings"), label.attrs.get("flag_values")
    if not isinstance(meanings, str) or meanings.split()[:1] != ["background"]:
        yield "/label", f"attribute flag_meanings is {meanings!r}, expected names that begin with background"
    elif "class" in size and len(meanings.split()) != size["class"]:
        yield "/label", f"flag_meanings names {len(meanings.split())} classes, expected {size['class']} as label_status"
    if "class" in size and not np.array_equal(values, np.arange(size["class"])):
        yield "/label", f"attribute flag_values is {values}, expected 0..{size['class'] - 1}"
    if label.attrs.get("ignore_value") != IGNORE:
        yield "/label", f"attribute ignore_value is {label.attrs.get('ignore_value')}, expected {IGNORE}"


def _values(file: h5py.File, path: str, seen: Seen) -> Iterator[Problem]:
    for name in file["xray"]:
        views = list(file[f"xray/{name}/view"].asstr()[...])
        if len(set(views)) != len(views):
            yield f"/xray/{name}/view", f"is {', '.join(views)}, expected different names"
    for i in range(file["ct"].shape[0]):
        yield from _unique(file, path, i, seen)
        for check in (_ct, _label, _affine, _xrays):
            try:
                yield from check(file, i)
            except OSError as error:
                yield f"case {i}", f"cannot be read ({error}), expected intact chunks"


def _unique(file: h5py.File, path: str, i: int, seen: Seen) -> Iterator[Problem]:
    text = {name: file[f"case/{name}"].asstr()[i] for name in ("id", "subject_key", "ct_sha256")}
    place, split = f"{path} case {i}", str(file.attrs.get("split"))
    if not text["subject_key"]:
        yield "/case/subject_key", f"case {i} is empty, expected the key of a patient"
    if (first := seen.ids.setdefault(text["id"], place)) != place:
        yield "/case/id", f"case {i} has id {text['id']!r} as {first}, expected an id of its own"
    if split not in NOT_SHARED:
        return
    for kind in ("subject_key", "ct_sha256"):
        other, first = seen.split_of.setdefault((kind, text[kind]), (split, place))
        if other != split:
            what = f"case {i} of split {split} shares {text[kind]!r} with {first} of split {other}"
            yield f"/case/{kind}", f"{what}, expected every patient in one of {', '.join(NOT_SHARED)}"


def _ct(file: h5py.File, i: int) -> Iterator[Problem]:
    require_chunk(file["ct"], i)
    ct_hu = file["ct"][i]
    low, high = int(ct_hu.min()), int(ct_hu.max())
    if low < HU_MIN or high > HU_MAX:
        yield "/ct", f"case {i} reaches from {low} to {high} HU, expected {HU_MIN}..{HU_MAX}"
    digest, stored = hashlib.sha256(ct_hu.tobytes()).hexdigest(), file["case/ct_sha256"].asstr()[i]
    if digest != stored:
        yield "/case/ct_sha256", f"case {i} is {stored!r}, expected {digest!r} as /ct reads"


def _label(file: h5py.File, i: int) -> Iterator[Problem]:
    require_chunk(file["label"], i)
    status = file["label_status"][i]
    counts = np.bincount(file["label"][i].ravel(), minlength=256)
    present = np.flatnonzero(counts)
    if wrong := [int(value) for value in present if value >= len(status) and value != IGNORE]:
        yield "/label", f"case {i} holds {wrong}, expected 0..{len(status) - 1} or {IGNORE}"
    if status.max() > COMPLETE:
        yield "/label_status", f"case {i} holds {status.max()}, expected 0..{COMPLETE}"
    for value in range(1, len(status)):
        if (status[value] in (CUT, COMPLETE)) != bool(counts[value]):
            yield (
                "/label_status",
                f"case {i} is {status[value]} for class {value} of {counts[value]} voxels, expected "
                + ("2 or 3 where there are voxels" if counts[value] else "0 or 1 where there are none"),
            )


def _affine(file: h5py.File, i: int) -> Iterator[Problem]:
    for name in ("affine", "source_affine"):
        affine = file[f"case/{name}"][i]
        if not (np.isfinite(affine).all() and np.array_equal(affine[3], [0, 0, 0, 1])):
            yield f"/case/{name}", f"case {i} is not an affine matrix, expected finite numbers and a last row 0 0 0 1"
        elif abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            yield f"/case/{name}", f"case {i} is singular, expected an invertible matrix"

    step_mm = np.linalg.norm(file["case/affine"][i][:3, :3], axis=0)
    for axis, step in zip("xyz", step_mm, strict=True):
        scale = file["ct"].dims["zyx".index(axis) + 1][0][...]
        if not np.allclose(scale, np.arange(len(scale)) * step, atol=SCALE_TOLERANCE_MM):
            yield "/case/affine", f"case {i} steps {step:g} mm along {axis}, expected the steps of its dimension scale"


def _xrays(file: h5py.File, i: int) -> Iterator[Problem]:
    for name, group in file["xray"].items():
        views = group["view"].asstr()[...]
        require_chunk(group["image"], i)
        images = group["image"][i]
        geometry = zip(group["projection"][i], group["source_mm"][i], group["detector_mm"][i], strict=True)
        for view, image, (projection, source, detector) in zip(views, images, geometry, strict=True):
            where = f"case {i} view {view}"
            if not np.isfinite(image).all():
                yield f"/xray/{name}/image", f"{where} has values that are not finite, expected line integrals"
            if problem := geometry_problem(projection, source, detector):
                yield f"/xray/{name}/projection", f"{where} {problem}"


def geometry_problem(
    projection: Float[ndarray, "3 4"], source_mm: Float[ndarray, "4"], detector_mm: Float[ndarray, "3 3"]
) -> str:
    """Why the matrix does not belong to this source and detector; "" if it does."""
    values: dict[str, Any] = {"projection": projection, "source_mm": source_mm, "detector_mm": detector_mm}
    for name, value in values.items():
        if not np.isfinite(value).all():
            return f"has a {name} that is not finite, expected finite numbers"
    if source_mm[3] not in (0, 1):
        return f"has a source_mm with w = {source_mm[3]:g}, expected 0 (direction) or 1 (focal spot)"
    origin, step_v, step_u = detector_mm
    for expected, point in (((0, 0), origin), ((0, 1), origin + step_v), ((1, 0), origin + step_u)):
        u, v, w = projection @ [*point, 1]
        if w <= 0 or np.abs([u / w - expected[0], v / w - expected[1]]).max() > PIXEL_TOLERANCE:
            found = f"({round(u / w, 3) + 0:g}, {round(v / w, 3) + 0:g})" if w > 0 else "behind the source"
            return f"projects the detector's pixel (u, v) = {expected} to {found}, expected itself"
    seen = np.linalg.norm(projection @ source_mm)
    if not seen < NULL_TOLERANCE * np.linalg.norm(projection) * np.linalg.norm(source_mm):
        return "does not have source_mm as its null vector, expected projection @ source_mm = 0"
    return ""
