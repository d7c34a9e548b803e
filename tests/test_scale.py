"""The large cohort in small: every kind of broken file gets its code, and no power cut changes a byte."""

import csv
import json
import os
import signal
import sys

import pytest
import yaml

from benchmarks import scale
from benchmarks.broken_cohort import KINDS, make_cohort
from benchmarks.scale import kill_often
from pipeline.__main__ import main
from pipeline.config import check_config
from pipeline.plan import make_plan


def test_every_kind_of_broken_file_gets_its_code_and_no_good_one_gets_any(tmp_path):
    codes = make_cohort(tmp_path, 2 * len(KINDS), broken=0.5)
    assert len(codes) == len(KINDS)
    plan = make_plan(check_config(yaml.safe_load((tmp_path / "config.yaml").read_text())), tmp_path)
    with (tmp_path / "cohort.csv").open(newline="", encoding="utf-8") as handle:
        rows = [row["case"] for row in csv.DictReader(handle)]
    found = {}
    for row, (name, case) in zip(rows, plan.cases.items(), strict=True):
        records = {stage: tmp_path / f"results/{stage}/{name}/case.json" for stage in ("fetch", "ingest", "label")}
        assert main(["fetch", *case.fetch, "--out", str(records["fetch"].parent)]) == 0
        cube = ["--cube", "8", "--spacing-mm", "8"]
        assert main(["ingest", str(records["fetch"]), *cube, "--out", str(records["ingest"].parent)]) == 0
        structures = ["--structures", "heart", "sternum", "liver"]
        assert main(["label", str(records["ingest"]), *structures, "--out", str(records["label"].parent)]) == 0
        record = json.loads(records["label"].read_text())
        if record["status"] != "ok":
            found[row] = record["code"]
    assert found == codes


@pytest.mark.parametrize("moment", ["undisturbed", "killed"])
def test_w05_a_polite_end_of_the_benchmark_leaves_no_workflow_and_no_cohort(tmp_path, monkeypatch, moment):
    """SIGTERM in the run to compare with, and between two kills."""
    begun, start = [], scale.start

    def sleeper(folder, cores):
        return [sys.executable, "-c", "import time; time.sleep(600)" if folder.name == moment else ""]

    def interrupt(place):
        os.kill(os.getpid(), signal.SIGTERM)
        return [place] * 9

    monkeypatch.setattr(scale, "command", sleeper)
    monkeypatch.setattr(scale, "start", lambda *given: begun.append(start(*given)) or begun[-1])
    monkeypatch.setattr(
        scale, "_look", (lambda pid, cost: None) if moment == "killed" else lambda pid, cost: interrupt(pid)
    )
    monkeypatch.setattr(scale, "made", lambda folder: interrupt(folder) if folder.name == "killed" else [folder] * 9)
    monkeypatch.setattr(sys, "argv", ["scale", "--kills", "1", "--cases", "2", "--out", str(tmp_path / "out")])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as caught:
            scale.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 143
    assert begun[-1].wait(timeout=20) == -signal.SIGKILL
    assert not (tmp_path / "out/work").exists()


@pytest.mark.slow
def test_w04_kills_at_random_times_change_no_byte_and_lose_no_case(tmp_path, capsys):
    """In small what `python -m benchmarks.scale --kills 10 --cases 200` does."""
    assert kill_often(tmp_path, cases=9, cores=2, broken=0.3, kills=4, seed=3), capsys.readouterr().out
