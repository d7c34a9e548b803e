"""From a file to the cube, its labels and its X-rays: the cases of the catalogue that need more than the reader."""

from __future__ import annotations

import gzip
import itertools
import resource
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.ingest import ingest
from pipeline.label import label
from pipeline.nifti import load_nifti
from pipeline.records import read_record
from tests.cohorts import write_nifti
from tests.pipeline.records import fetched
from tests.pipeline.test_read_dicom import save, series
from tests.pipeline.test_read_nifti import nifti_bytes

SHAPE = (30, 26, 22)
AFFINE = np.array([[2.5, 0, 0, -35], [0, 3.0, 0, -40], [0, 0, 4.0, 10], [0, 0, 0, 1]])
IDS = {"kidney_right": 2, "kidney_left": 3, "liver": 5}


def person(shape=SHAPE, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """CT (HU) and ids (i, j, k): air, a body off the middle, a liver on the right, kidneys behind, all unlike."""
    rng = np.random.default_rng(seed)
    ct, ids = rng.normal(-1000, 8, shape), np.zeros(shape, np.uint8)
    ct[4:27, 3:24] = rng.normal(-90, 20, (23, 21, shape[2]))
    ct[6:25, 5:22] = rng.normal(40, 15, (19, 17, shape[2]))
    for value, box, hu in (
        (5, np.s_[16:24, 12:20, 9:18], 110),
        (2, np.s_[18:23, 6:11, 4:8], 200),
        (3, np.s_[8:12, 7:11, 5:11], 250),
    ):
        ct[box], ids[box] = hu, value
    ct[9:11, 14:16, 2:20] = 900
    return np.rint(ct).astype(np.int16), ids


def run_ingest(folder, ct, affine=AFFINE, labels=None, *, cube=24, spacing_mm=4.0, **options):
    """Record of the ingest stage for arrays (i, j, k), and of the label stage if there are labels."""
    write_nifti(folder / "ct.nii.gz", ct.T, affine)
    if labels is not None:
        write_nifti(folder / "label.nii.gz", labels.T, affine)
    record = fetched(folder, folder / "ct.nii.gz", folder / "label.nii.gz" if labels is not None else None)
    done = ingest(record, folder / "ingest", cube=cube, spacing_mm=spacing_mm, **options)
    if labels is not None and done["status"] == "ok":
        return label(folder / "ingest/case.json", folder / "label", structures=["kidney", "liver"])
    return done


def line_integrals(hu, spacing_mm=4.0) -> list[np.ndarray]:
    """Parallel PA and lateral X-rays of a cube (z, y, x) by plain sums: no projector, no geometry to be wrong twice."""
    mu = 0.0206 * np.clip(1 + hu / 1000.0, 0, None)  # per mm, water at 60 keV
    return [mu.sum(axis=1) * spacing_mm, mu.sum(axis=2) * spacing_mm]


def test_n06_all_48_orientations_give_the_same_cube_labels_and_xrays(tmp_path):
    ct, ids = person()
    expected = None
    for number, (axes, flips) in enumerate(
        itertools.product(itertools.permutations(range(3)), itertools.product([1, -1], repeat=3))
    ):
        change = np.array(list(zip(axes, flips, strict=True)))
        moved, moved_ids = (nib.Nifti1Image(data, AFFINE).as_reoriented(change) for data in (ct, ids))
        folder = tmp_path / str(number)
        folder.mkdir()
        done = run_ingest(folder, np.asarray(moved.dataobj), moved.affine, np.asarray(moved_ids.dataobj))
        assert done["status"] == "ok", done
        hu, mapped = load_nifti(folder / "ingest/ct.nii.gz"), load_nifti(folder / "label/label.nii.gz")
        found = [hu, mapped, np.array(done["affine"]), *line_integrals(hu)]
        expected = expected or found
        for got, want in zip(found, expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-9, err_msg=str(change))


def tilted_ball(shear: float, shape=(40, 44, 30)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A ball of 24 mm radius seen by slices that lean: CT (i, j, k), affine, the ball's place in RAS mm."""
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[1, 2] = 3.0 * shear
    indices = np.indices(shape)
    world = np.einsum("ab,bijk->aijk", affine[:3, :3], indices)
    middle = (affine @ [24.0, 18.0, 13.0, 1.0])[:3]
    body = np.random.default_rng(0).normal(-80, 20, shape)
    body[np.linalg.norm(world - middle[:, None, None, None], axis=0) < 24.0] = 500
    return np.rint(body).astype(np.int16), affine, middle


def assert_a_ball(done, folder, middle):
    hu = load_nifti(folder / "ingest/ct.nii.gz")
    zyx = np.argwhere(hu > 210)
    np.testing.assert_allclose((np.array(done["affine"]) @ [*zyx.mean(axis=0)[::-1], 1])[:3], middle, atol=0.7)
    np.testing.assert_allclose(np.ptp(zyx, axis=0) + 1, 16, atol=1)
    radius_mm = np.linalg.norm((zyx - zyx.mean(axis=0)) * 3.0, axis=1)
    assert radius_mm.max() < 24 + 3 and len(zyx) * 27 == pytest.approx(4 / 3 * np.pi * 24**3, rel=0.05)


@pytest.mark.parametrize("lean_deg", [15, -25])
def test_n08_a_sheared_file_shows_a_ball_as_a_ball(tmp_path, lean_deg):
    ct, affine, middle = tilted_ball(np.tan(np.deg2rad(lean_deg)))
    (tmp_path / "ct.nii").write_bytes(nifti_bytes(ct, affine, qform_code=0))
    done = ingest(fetched(tmp_path, tmp_path / "ct.nii"), tmp_path / "ingest", cube=48, spacing_mm=3.0)
    assert (done["status"], done["flags"]) == ("ok", ["SHEARED", "TRUNC_FOV"])
    assert_a_ball(done, tmp_path, middle)


def test_c03_a_tilted_series_shows_a_ball_as_a_ball(tmp_path):
    """Slices leaning by 15 degrees, positions along z: the way a tilted gantry writes them."""
    lean = np.deg2rad(15)
    affine = np.array([[3, 0, 0, 0], [0, 3 * np.cos(lean), 0, 0], [0, 3 * np.sin(lean), 3, 0], [0, 0, 0, 1.0]])
    shape = (40, 44, 30)
    world = np.einsum("ab,bijk->aijk", affine[:3, :3], np.indices(shape))
    middle = (affine @ [24.0, 18.0, 13.0, 1.0])[:3]
    ct = np.random.default_rng(0).normal(-80, 20, shape)
    ct[np.linalg.norm(world - middle[:, None, None, None], axis=0) < 24.0] = 500
    folder = save(tmp_path / "series", series(np.rint(ct).astype(np.int16), affine))
    done = ingest(fetched(tmp_path, folder), tmp_path / "ingest", cube=56, spacing_mm=3.0)
    assert (done["status"], done["flags"]) == ("ok", ["SHEARED", "TRUNC_FOV"])
    assert_a_ball(done, tmp_path, middle)


@pytest.mark.parametrize("padding", [-2000, -3024])
def test_n18_padding_gives_the_xrays_of_air(tmp_path, padding):
    ct, _ = person()
    images = {}
    for value in (-1024, padding):
        padded = ct.copy()
        padded[:, :2] = padded[:3] = padded[:, :, :1] = value
        (tmp_path / str(value)).mkdir()
        assert run_ingest(tmp_path / str(value), padded)["status"] == "ok"
        images[value] = line_integrals(load_nifti(tmp_path / str(value) / "ingest/ct.nii.gz"))
    for got, want in zip(images[padding], images[-1024], strict=True):
        assert want.max() > 1 and abs(got - want).max() <= 1e-3


def shifted(ids):
    return ids, AFFINE @ np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (shifted, "E_LABEL_AFFINE"),
        (lambda ids: (np.pad(ids, ((0, 0), (0, 0), (0, 1))), AFFINE), "E_LABEL_SHAPE"),
        (lambda ids: (np.where(ids == 5, 200, ids).astype(np.uint8), AFFINE), "E_LABEL_VALUES"),
        (lambda ids: (np.zeros_like(ids), AFFINE), "E_LABEL_EMPTY"),
    ],
    ids=["shifted by a voxel", "other shape", "unnamed id", "empty"],
)
def test_n19_labels_that_do_not_belong_to_the_ct_set_the_case_aside(tmp_path, change, code):
    ct, ids = person()
    write_nifti(tmp_path / "ct.nii.gz", ct.T, AFFINE)
    bad, affine = change(ids)
    write_nifti(tmp_path / "label.nii.gz", bad.T, affine)
    record = fetched(tmp_path, tmp_path / "ct.nii.gz", tmp_path / "label.nii.gz")
    assert ingest(record, tmp_path / "ingest", cube=24, spacing_mm=4.0)["status"] == "ok"
    done = label(tmp_path / "ingest/case.json", tmp_path / "label", structures=["kidney", "liver"])
    assert (done["status"], done["stage"], done["code"]) == ("quarantined", "label", code)
    assert str(tmp_path) not in done["reason"] and not (tmp_path / "label/label.nii.gz").exists()


def test_n20_swapped_sides_set_the_case_aside(tmp_path):
    ct, ids = person()
    assert run_ingest(tmp_path, ct, labels=ids)["label_status"] == [3, 3, 3]
    swapped = np.where(ids == 2, 3, np.where(ids == 3, 2, ids)).astype(np.uint8)
    done = run_ingest(tmp_path, ct, labels=swapped)
    assert (done["status"], done["code"]) == ("quarantined", "E_LR_INCONSISTENT")


def test_what_the_rim_of_a_round_picture_cuts_is_cut(tmp_path):
    ct, ids = person((48, 44, 22))
    i, j, _ = np.indices(ct.shape)
    outside = np.hypot((2 * i - 47) / 48, (2 * j - 43) / 44) > 1
    ct[outside] = -2000
    for name, box in (("inside", np.s_[16:24, 12:20, 9:18]), ("cut", np.s_[36:44, 32:42, 9:18])):
        round_ids = np.where(ids == 5, 0, ids).astype(np.uint8)
        round_ids[box] = 5
        round_ids[outside] = 0
        (tmp_path / name).mkdir()
        done = run_ingest(tmp_path / name, ct, labels=round_ids, cube=48)
        assert "FOV_CIRCLE" in done["flags"] and done["label_status"] == [3, 3, 3 if name == "inside" else 2], name


def test_names_of_the_record_and_its_corrections_come_before_the_scheme(tmp_path):
    ct, ids = person()
    write_nifti(tmp_path / "ct.nii.gz", ct.T, AFFINE)
    write_nifti(tmp_path / "label.nii.gz", np.where(ids == 5, 9, ids).astype(np.uint8).T, AFFINE)
    for changes in (
        {"label_remap": {"9": 5}},
        {"label_names": {"2": "kidney_right", "3": "kidney_left", "9": "liver"}},
    ):
        record = fetched(tmp_path, tmp_path / "ct.nii.gz", tmp_path / "label.nii.gz", **changes)
        ingest(record, tmp_path / "ingest", cube=24, spacing_mm=4.0)
        done = label(tmp_path / "ingest/case.json", tmp_path / "label", structures=["liver", "kidney"])
        mapped = load_nifti(tmp_path / "label/label.nii.gz")
        assert done["label_status"] == [3, 3, 3] and (mapped == 1).sum() > (mapped == 2).sum() > 0


def test_h11_values_beyond_the_range_are_clipped_and_counted_and_never_wrap(tmp_path):
    ct, _ = person()
    ct = ct.astype(np.int32)
    ct[10:13, 14:17, 2:20] = np.array([3072, 20_000, 40_000])[:, None, None]
    ct[:3] = -1025
    done = run_ingest(tmp_path, ct.astype(np.float32), cube=40, spacing_mm=2.0)
    assert done["clipped_voxels"] == 3 * 3 * 18 and done["flags"] == ["METAL"]
    hu = load_nifti(tmp_path / "ingest/ct.nii.gz")
    assert (hu.dtype, hu.min(), hu.max()) == (np.int16, -1024, 3071)


def test_strict_ingest_refuses_what_contradicts_itself(tmp_path):
    mirrored = np.diag([-1.0, 1, 1, 1]) @ AFFINE
    (tmp_path / "ct.nii.gz").write_bytes(gzip.compress(nifti_bytes(person()[0], AFFINE, qform=mirrored)))
    record = fetched(tmp_path, tmp_path / "ct.nii.gz")
    done = ingest(record, tmp_path / "ingest", cube=24, spacing_mm=4.0)
    assert (done["status"], done["flags"]) == ("ok", ["QS_MISMATCH"])
    command = [
        "ingest",
        str(record),
        "--cube",
        "24",
        "--spacing-mm",
        "4",
        "--strict",
        "--out",
        str(tmp_path / "strict"),
    ]
    assert main(command) == 0
    done = read_record(tmp_path / "strict/case.json")
    assert (done["status"], done["code"]) == ("quarantined", "E_HEADER")


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
from pipeline.__main__ import main
code = main(sys.argv[2:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


def large_file(path, slices: int, size: int = 512, *, sparse: bool = False) -> int:
    """An int16 CT of `size` x `size` x `slices` written slice by slice, or not written at all; returns its bytes."""
    header = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.diag([0.75, 0.75, 0.8, 1.0])).header
    header.set_xyzt_units("mm")
    header["dim"], header["vox_offset"] = [3, size, size, slices, 1, 1, 1, 1], 352
    i, j = np.ogrid[:size, :size]
    body = ((i / size - 0.5) / 0.35) ** 2 + ((j / size - 0.5) / 0.3) ** 2 < 1
    noise = np.random.default_rng(0).normal(0, 12, (size, size))
    plane = np.rint(np.where(body, 40, -1000) + noise - 120 * (body & (i < 0.3 * size))).astype("<i2")
    with path.open("wb") as file:
        file.write(header.binaryblock + b"\0" * 4)
        if sparse:
            file.truncate(352 + size * size * slices * 2)
        for k in range(0 if sparse else slices):
            file.write(np.roll(plane, k % 7, axis=0).tobytes(order="F"))
    return path.stat().st_size


def ingest_within(folder, limit_bytes, cube=128):
    command = [sys.executable, "-c", LIMITED, str(limit_bytes), "ingest", str(folder / "fetch/case.json")]
    command += ["--cube", str(cube), "--spacing-mm", "3", "--out", str(folder / "ingest")]
    threads = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**__import__("os").environ, **threads}
    )


@pytest.mark.slow
def test_w12_a_large_ct_is_ingested_in_bounded_memory(tmp_path):
    """512 x 512 x 300: the voxels once (157 MB) and tiles of them, never a float copy of all (another 315 MB, twice)."""
    size = large_file(tmp_path / "ct.nii", 300)
    fetched(tmp_path, tmp_path / "ct.nii")
    done = ingest_within(tmp_path, 4 << 30)
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout) * 1024
    assert peak < size + 700e6, f"{peak / 1e6:.0f} MB for a file of {size / 1e6:.0f} MB"


def test_w12_too_little_memory_is_worth_a_retry_and_no_fault_of_the_case(tmp_path):
    large_file(tmp_path / "ct.nii", 400, 1024, sparse=True)
    fetched(tmp_path, tmp_path / "ct.nii")
    done = ingest_within(tmp_path, 700 << 20, cube=16)
    assert done.returncode == 75, done.stderr
    assert done.stderr.startswith("ERROR: out of memory") and "Traceback" not in done.stderr
    assert not (tmp_path / "ingest/case.json").exists()
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
