"""The whole thread on a little cohort: the user's one command, from files to the page, and what a user does next."""

import csv
import hashlib
import re

import nibabel as nib
import numpy as np
import pytest

from tests.cohorts import good_rows, jobs, kill_during, run, write_cohort, write_config
from tests.test_workflow import DERIVE

SPIDER = {"steps": 4, "batch": 2, "widths": [8, 8, 16], "hidden": 16, "points": 8, "run": 4, "log2_entries": 10}
RUNS = {
    "mean": {"model": "mean", "simulator": "parallel"},
    "fdk": {"model": "backprojection", "simulator": "cone"},
    "spider": {"model": "spider", "simulator": "cone", "settings": SPIDER},
}
CHANGES = {
    "derive": [{"parent": "a", "train": 2, "family_validation": 1, "family": 1}],
    "runs": RUNS,
    "report_splits": ["family", "test"],
    "max_quarantine_fraction": 0.5,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Three CTs, one of the test patients broken, run to the report."""
    folder = tmp_path_factory.mktemp("thread")
    rows = good_rows(folder)
    (folder / "c.nii.gz").write_bytes(b"<html>not a CT</html>")
    write_cohort(folder, rows, **CHANGES)
    done = run(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


def test_the_summary_is_printed_and_the_page_is_there(finished):
    folder, done = finished
    text = done.stdout + done.stderr
    assert "results/report/index.html" in text
    for word in ("family", "test", "mean", "fdk", "spider", "PSNR"):
        assert word in text
    assert (folder / "results/report/example.png").stat().st_size > 1000


def test_the_page_needs_nothing_but_itself_and_tells_what_was_left_out(finished):
    page = (finished[0] / "results/report/index.html").read_text()
    assert "Content-Security-Policy" in page and "<script" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "E_NOT_NIFTI" in page and "CC0-1.0" in page
    assert "same patient, new deformation" in page
    assert str(finished[0]) not in page


def test_every_real_case_shows_its_simulated_xrays(finished):
    page = (finished[0] / "results/report/index.html").read_text()
    section = page[page.index('<section id="radiographs">') :].split("</section>")[0]
    assert re.findall("<summary>(.*?)</summary>", section) == ["a", "b"]
    assert {path.name for path in finished[0].glob("results/radiographs/*")} == {"a.png", "b.png"}


def test_every_case_and_metric_is_a_row(finished):
    for name in RUNS:
        with (finished[0] / f"results/evaluate/{name}.csv").open() as handle:
            rows = list(csv.DictReader(handle))
        assert {row["case"] for row in rows} == {"a-d0004", "b"}
        assert all(row["reason"] for row in rows if row["value"] == "nan")
        assert {row["metric"].split("_")[0] for row in rows} == {
            *("psnr", "psnr-inside", "psnr-outside", "mae", "mae-inside", "mae-outside"),
            "ssim3d",
            "mse",
            "cosine",
            "dice",
            "hd95",
            "chamfer",
        }


def test_reconstructions_overlay_their_ct(finished):
    folder, _ = finished
    for name in RUNS:
        truth = nib.load(folder / "results/ingest/b/ct.nii.gz")
        found = nib.load(folder / f"results/reconstruct/{name}/b/ct.nii.gz")
        assert found.shape == truth.shape and found.get_data_dtype() == np.int16
        np.testing.assert_allclose(found.affine, truth.affine, atol=1e-4)
    labels = nib.load(folder / "results/reconstruct/spider/b/label.nii.gz")
    assert labels.shape == truth.shape and np.asanyarray(labels.dataobj).max() <= 3


def test_after_success_there_is_nothing_to_do(finished):
    done = run(finished[0], "-n")
    assert "Nothing to be done" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ({"window_hu": [-900, 1400]}, {"train": 3, "reconstruct": 3, "evaluate": 3, "report": 1}),
        (
            {"runs": RUNS | {"spider": RUNS["spider"] | {"settings": SPIDER | {"steps": 5}}}},
            {"train": 1, "reconstruct": 1, "evaluate": 1, "report": 1},
        ),
        ({"report_splits": ["test"]}, {"reconstruct": 3, "evaluate": 3, "report": 1}),
    ],
    ids=["window", "one-setting", "splits"],
)
def test_a_changed_value_reruns_exactly_what_depends_on_it(finished, change, rules):
    folder, _ = finished
    write_config(folder, **(CHANGES | change))
    try:
        found = jobs(run(folder, "-n"))
    finally:
        write_config(folder, **CHANGES)
    found.pop("all", None)
    assert found == rules


def test_a_power_cut_in_every_stage_of_the_learning_ends_in_the_same_results(tmp_path, finished):
    """kill -9 of the process tree during train, reconstruct, evaluate and report, on a copy of the finished data."""
    rows = good_rows(tmp_path)
    (tmp_path / "c.nii.gz").write_bytes(b"<html>not a CT</html>")
    write_cohort(tmp_path, rows, **CHANGES)
    for stage in ("train", "reconstruct", "evaluate", "report"):
        kill_during(stage, tmp_path)
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for pattern in ("shards/**/*.h5", "reconstruct/*/*/*.nii.gz", "evaluate/*.csv", "report/summary.csv"):
        digests = [
            {
                str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in folder.glob(f"results/{pattern}")
            }
            for folder in (tmp_path, finished[0])
        ]
        assert digests[0] == digests[1] and digests[0]


def test_derived_cases_of_an_unlabelled_parent_are_refused_in_words(tmp_path):
    rows = good_rows(tmp_path)[:1]
    rows[0]["label"] = ""
    write_cohort(tmp_path, rows, derive=DERIVE)
    done = run(tmp_path, "shards")
    assert done.returncode != 0
    assert "derived cases are asked of a, which has no labels" in done.stdout + done.stderr
