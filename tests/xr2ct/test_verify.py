"""Every check of `verify` goes red when a shard is damaged in its way, and only then."""

import hashlib

import h5py
import numpy as np
import pytest

from tests.phantoms import phantom_case, write_phantom_shard
from tests.xr2ct.golden import ARRAY, SHAPE, write_golden_shard
from xr2ct.errors import UserError
from xr2ct.shards import Shard
from xr2ct.verify import geometry_problem, verify


@pytest.fixture
def golden(tmp_path):
    return write_golden_shard(tmp_path / "golden.h5")


def test_whole_shards_have_no_problem(golden, tmp_path):
    phantom = write_phantom_shard(tmp_path / "p.h5", [phantom_case("p0"), phantom_case("p1")], split="test")
    assert list(verify([golden, phantom])) == []


def attribute(path, name, value):
    def damage(file):
        file[path].attrs[name] = value

    return damage


def no_attribute(path, name):
    def damage(file):
        del file[path].attrs[name]

    return damage


def values(path, index, value):
    def damage(file):
        file[path][index] = value

    return damage


def replaced(path, **changes):
    """The dataset written again with another type, shape or filter; its scales are attached again."""

    def damage(file):
        old = file[path]
        scales = [dim[0].name if len(dim) else None for dim in old.dims]
        data = changes.get("data", lambda array: array)(old[...])
        options, attributes = changes.get("options", ARRAY), dict(old.attrs)
        attributes.pop("DIMENSION_LIST", None)
        del file[path]
        file.create_dataset(path, data=data, **({"chunks": (1, *data.shape[1:])} | options))
        file[path].attrs.update(attributes)
        for dim, scale in zip(file[path].dims, scales, strict=False):
            if scale:
                dim.attach_scale(file[scale])

    return damage


def deleted(path):
    def damage(file):
        del file[path]

    return damage


def no_scale(path, axis):
    def damage(file):
        file[path].dims[axis].detach_scale(file[path].dims[axis][0])

    return damage


DAMAGES = {
    "schema": (attribute("/", "schema", "x"), "/: schema is 'x', expected 'xr2ct/shard'"),
    "version": (attribute("/", "schema_version", "2.1"), "/: schema_version is 2.1, expected 1.x"),
    "unfinished": (attribute("/", "complete", 0), "/: complete is 0, expected 1"),
    "no licence": (no_attribute("/", "license"), "/: attribute license is None, expected text"),
    "seed as text": (attribute("/", "seed", "three"), "/: attribute seed is 'three', expected an integer"),
    "world": (attribute("/", "world", "LPS mm"), "/: attribute world is 'LPS mm', expected 'RAS mm'"),
    "axes": (attribute("/", "volume_axes", "x y z"), "/: attribute volume_axes is 'x y z'"),
    "config": (attribute("/", "config_json", "{}"), "/: attribute config_sha256 is"),
    "count": (attribute("/", "n_cases", 3), "/: attribute n_cases is 3, expected 2 as in /ct"),
    "ct type": (replaced("ct", data=lambda a: a.astype("<i4")), "/ct: has type <i4, expected <i2"),
    "ct big-endian": (replaced("ct", data=lambda a: a.astype(">i2")), "/ct: has type >i2, expected <i2"),
    "label shape": (
        replaced("label", data=lambda a: a[:, :, :, :-1]),
        f"/label: has {SHAPE[2] - 1} along x, expected {SHAPE[2]}",
    ),
    "image dimensions": (replaced("xray/cone/image", data=lambda a: a[..., None]), "/xray/cone/image: has shape"),
    "no checksum": (replaced("ct", options={"compression": "gzip"}), "/ct: has no checksum, expected the fletcher32"),
    "chunks": (
        replaced("ct", options=ARRAY | {"chunks": (2, *SHAPE)}),
        "/ct: has chunks (2, 3, 4, 5), expected one per case: (1, 3, 4, 5)",
    ),
    "missing": (deleted("case/qc_flags"), "/case/qc_flags: is missing, expected a dataset"),
    "no simulator": (deleted("xray"), "/xray/?/view: is missing"),
    "scale": (no_scale("ct", 2), "/ct: has no dimension scale on axis 2, expected y"),
    "image scale": (no_scale("xray/cone/image", 3), "/xray/cone/image: has no dimension scale on axis 3, expected u"),
    "units": (no_attribute("z", "units"), "/z: has no units, expected the attribute units"),
    "background": (attribute("label", "flag_meanings", "heart liver x"), "/label: attribute flag_meanings is"),
    "classes": (
        attribute("label", "flag_meanings", "background a"),
        "/label: flag_meanings names 2 classes, expected 3",
    ),
    "flag values": (attribute("label", "flag_values", np.array([0, 2, 1])), "/label: attribute flag_values is [0 2 1]"),
    "ignore": (attribute("label", "ignore_value", 0), "/label: attribute ignore_value is 0, expected 255"),
    "HU above": (values("ct", (1, 0, 0, 0), 3072), "/ct: case 1 reaches from -192 to 3072 HU, expected -1024..3071"),
    "HU below": (values("ct", (0, 0, 0, 0), -1025), "/ct: case 0 reaches from -1025"),
    "digest": (values("case/ct_sha256", 1, "0" * 64), "/case/ct_sha256: case 1 is '000"),
    "label value": (values("label", (0, 0, 1, 0), 3), "/label: case 0 holds [3], expected 0..2 or 255"),
    "status value": (values("label_status", (0, 0), 4), "/label_status: case 0 holds 4, expected 0..3"),
    "status of a structure with voxels": (
        values("label_status", (0, 1), 1),
        "/label_status: case 0 is 1 for class 1 of 1 voxels, expected 2 or 3",
    ),
    "status of a structure without voxels": (
        values("label", (1, 1, 2, 3), 0),
        "/label_status: case 1 is 3 for class 1 of 0 voxels, expected 0 or 1",
    ),
    "affine row": (values("case/affine", (0, 3, 0), 1), "/case/affine: case 0 is not an affine matrix"),
    "affine NaN": (values("case/affine", (0, 0, 0), np.nan), "/case/affine: case 0 is not an affine matrix"),
    "affine singular": (values("case/affine", (1, 2), [0, 0, 0, 5]), "/case/affine: case 1 is singular"),
    "affine spacing": (
        values("case/affine", (1, 0, 0), 2.5),
        "/case/affine: case 1 steps 2.5 mm along x, expected the steps of its dimension scale",
    ),
    "source affine": (values("case/source_affine", (1, 1), [0, 0, 0, 5]), "/case/source_affine: case 1 is singular"),
    "image NaN": (values("xray/cone/image", (1, 0, 1, 2), np.nan), "/xray/cone/image: case 1 view LAT has values"),
    "projection NaN": (
        values("xray/cone/projection", (1, 0, 1, 2), np.inf),
        "/xray/cone/projection: case 1 view LAT has a projection that is not finite",
    ),
    "half a pixel": (
        values("xray/parallel/projection", (0, 0, 0, 3), 10.5),
        "/xray/parallel/projection: case 0 view LAT projects the detector's pixel (u, v) = (0, 0) to (0.5, 0)",
    ),
    "pixel size": (
        values("xray/parallel/detector_mm", (0, 0, 1), [0, 0, -5]),
        "/xray/parallel/projection: case 0 view LAT projects the detector's pixel (u, v) = (0, 1) to (0, 0.833)",
    ),
    "mirrored": (
        values("xray/cone/detector_mm", (0, 0, 2), [0, 4, 0]),
        "/xray/cone/projection: case 0 view LAT projects the detector's pixel (u, v) = (1, 0) to (-1, 0), expected",
    ),
    "behind": (
        lambda file: file["xray/cone/projection"].write_direct(-file["xray/cone/projection"][...]),
        "/xray/cone/projection: case 0 view LAT projects the detector's pixel (u, v) = (0, 0) to behind the source",
    ),
    "moved tube": (
        values("xray/cone/source_mm", (1, 0, 1), 6.0),
        "/xray/cone/projection: case 1 view LAT does not have source_mm as its null vector",
    ),
    "no direction": (
        values("xray/parallel/source_mm", (1, 0), [0, 0, 0, 0]),
        "/xray/parallel/projection: case 1 view LAT does not have source_mm as its null vector",
    ),
    "source w": (
        values("xray/cone/source_mm", (0, 0, 3), 2.0),
        "/xray/cone/projection: case 0 view LAT has a source_mm with w = 2",
    ),
    "no patient": (values("case/subject_key", 0, ""), "/case/subject_key: case 0 is empty"),
    "same id": (values("case/id", 1, "case-a"), "/case/id: case 1 has id 'case-a' as"),
}


FOLLOWED = {"affine NaN", "affine singular", "HU above", "HU below", "no simulator", "behind"}
"""Damages that break a second rule as well: the digest of the CT, a dataset of the missing group, another view."""


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_one_line(golden, name):
    damage, message = DAMAGES[name]
    with h5py.File(golden, "a") as file:
        damage(file)
    lines = list(verify([golden]))
    assert any(line.startswith(f"{golden}: {message}") for line in lines), lines
    assert all(line.startswith(f"{golden}: /") and "expected" in line and "\n" not in line for line in lines)
    assert (len(lines) > 1) == (name in FOLLOWED), lines


def test_h02_a_flipped_bit_in_any_big_array_is_found(golden):
    whole = golden.read_bytes()
    for name in ("ct", "label", "xray/parallel/image"):
        with h5py.File(golden, "r") as file:
            chunk = file[name].id.get_chunk_info(1)
        damaged = bytearray(whole)
        damaged[chunk.byte_offset + chunk.size // 2] ^= 1
        golden.write_bytes(damaged)
        (line,) = verify([golden])
        assert "case 1: cannot be read" in line
        golden.write_bytes(whole)


def test_h03_unreadable_files_are_one_line_each(golden, tmp_path):
    short, text_file = tmp_path / "short.h5", tmp_path / "text.h5"
    short.write_bytes(golden.read_bytes()[:-100])
    text_file.write_text("hello")
    lines = list(verify([short, text_file, tmp_path / "absent.h5"]))
    assert len(lines) == 3 and all("/: cannot be read" in line for line in lines)


@pytest.mark.parametrize("name", ["ct", "label", "xray/cone/image"])
def test_a_chunk_that_hdf5_would_read_as_zeros_is_found(golden, name):
    """A bit flipped in the chunk index loses a chunk without an error of HDF5; here it was never written."""
    with h5py.File(golden, "a") as file:
        old, scales = file[name], [dim[0].name if len(dim) else None for dim in file[name].dims]
        first, attributes, shape, dtype = old[0], dict(old.attrs), old.shape, old.dtype
        del file[name]
        file.create_dataset(name, shape, dtype, chunks=(1, *shape[1:]), **ARRAY)[0] = first
        attributes.pop("DIMENSION_LIST", None)
        file[name].attrs.update(attributes)
        for dim, scale in zip(file[name].dims, scales, strict=True):
            if scale:
                dim.attach_scale(file[scale])
        assert not file[name][1].any()
    (line,) = verify([golden])
    assert "case 1: cannot be read (the chunk of case 1 is not in the file)" in line
    shard = Shard(golden)
    assert shard.case(0).id == "case-a" and shard.xray(0, "cone").views == ["LAT"]
    with pytest.raises(UserError, match=f"golden.h5: /{name} is missing or damaged"):
        shard.case(1), shard.xray(1, "cone")


def test_h02_any_flipped_bit_is_a_line_or_harmless_and_never_a_traceback(golden):
    """Small geometry has no checksum of its own: what stays green there is below the tolerances or in free text."""
    whole = golden.read_bytes()
    reference = verify_and_read(golden)
    assert reference[0] == []
    random = np.random.default_rng(7)
    for position in random.integers(len(whole), size=150):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << random.integers(8)
        golden.write_bytes(damaged)
        lines, volumes = verify_and_read(golden)
        assert lines or volumes == reference[1], position


def verify_and_read(path):
    """Problems of a shard, and the bytes of its volumes and images or the message that refuses them."""
    lines = list(verify([path]))
    try:
        shard = Shard(path)
        cases = [shard.case(i) for i in range(len(shard))]
        xrays = [shard.xray(i, name) for i in range(len(shard)) for name in shard.simulators]
        return lines, [c.ct_hu.tobytes() + c.label.tobytes() for c in cases] + [x.image.tobytes() for x in xrays]
    except UserError as error:
        return lines, str(error)


def test_twins_of_a_simulator_view_are_found(tmp_path):
    path = write_phantom_shard(tmp_path / "p.h5", [phantom_case("p0")])
    with h5py.File(path, "a") as file:
        file["xray/cone/view"][1] = "PA"
    (line,) = verify([path])
    assert "/xray/cone/view: is PA, PA, expected different names" in line


def two_shards(tmp_path, first_split, second_split, **second):
    first = write_golden_shard(tmp_path / "first.h5", split=first_split)
    arguments = {"ids": ("case-c", "case-d"), "subjects": ("s3", "s4")} | second
    other = write_golden_shard(tmp_path / "other.h5", split=second_split, **arguments)
    with h5py.File(other, "a") as file:  # other CTs than those of the first file
        shifted = file["ct"][...] + 9
        file["ct"][...] = shifted
        for i in range(2):
            file["case/ct_sha256"][i] = hashlib.sha256(shifted[i].tobytes()).hexdigest()
    return [first, other]


def test_h13_a_patient_in_two_splits_is_found_over_all_files(tmp_path):
    assert list(verify(two_shards(tmp_path, "train", "test"))) == []
    paths = two_shards(tmp_path, "train", "test", subjects=("s1", "s4"))
    (line,) = verify(paths)
    assert line.startswith(f"{paths[1]}: /case/subject_key: case 0 of split test shares 's1' with {paths[0]} case 0")
    assert list(verify([paths[1]])) == []


def test_h13_the_same_ct_in_two_splits_is_found(tmp_path):
    first = write_golden_shard(tmp_path / "first.h5")
    other = write_golden_shard(tmp_path / "other.h5", split="validation", ids=("c", "d"), subjects=("s3", "s4"))
    lines = list(verify([first, other]))
    assert len(lines) == 2 and all("/case/ct_sha256" in line for line in lines)


def test_a_family_may_share_its_patient_with_training(tmp_path):
    assert list(verify(two_shards(tmp_path, "train", "family", subjects=("s1", "s2")))) == []


def test_an_id_in_two_files_is_found(tmp_path):
    (line,) = verify(two_shards(tmp_path, "train", "train", ids=("case-a", "case-d")))
    assert "/case/id: case 0 has id 'case-a' as" in line


def test_a_moved_focal_spot_of_a_tenth_of_a_millimetre_is_found():
    case = phantom_case("p")
    xray = case.xrays["cone"]
    geometry = [np.array(part[0]) for part in (xray.projection, xray.source_mm, xray.detector_mm)]
    assert geometry_problem(*geometry) == ""
    geometry[1][2] += 0.1
    assert "null vector" in geometry_problem(*geometry)
