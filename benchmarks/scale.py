"""What a large cohort costs, and what breaks it: `python -m benchmarks.scale --out FOLDER`.

Makes a cohort of little CTs of which 5 % are broken in every way the catalogue has (benchmarks/broken_cohort.py), runs the
workflow on it from fetch to shard, and prints and writes (FOLDER/scale.csv) what that took. The CTs are so small that what
is measured is the workflow itself: real ones add their own work and bytes to each job.

  --cases 1000 --cores 2     the whole measurement, then its linear extrapolation
  --stages-scaling           60 cases with one core and with two
  --kills 10 --cases 200     kill -9 of the whole process tree at ten random times: the same bytes as undisturbed?
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.broken_cohort import make_cohort
from pipeline.files import read_table
from pipeline.patients import case_id
from pipeline.shard_file import CASES_PER_SHARD

ROOT = Path(__file__).parents[1]
COHORTS = {"TotalSegmentator": 1228, "NLST (labelled series)": 126_000}
STAGES = ("fetch", "ingest", "label", "cohort", "project", "shard")
SMALL_CASES = 6
ARGUMENT_BYTES = 128 * 1024
"""Linux: the longest single argument of a command; a rule's whole shell command is one."""
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_POLL_S = 0.25


@dataclass
class Cost:
    """What one run of the workflow took; `snakemake_*` is its main process alone, `job_mb` the largest job."""

    exit_code: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    snakemake_cpu_s: float = 0.0
    snakemake_mb: float = 0.0
    first_job_s: float = 0.0
    job_mb: float = 0.0


def command(folder: Path, cores: int) -> list[str]:
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    profile = ["--workflow-profile", str(ROOT / "profiles/default")]
    return [*snakemake, *profile, "--cores", str(cores), "shards", "--quiet", "progress", "rules"]


def start(folder: Path, cores: int) -> subprocess.Popen:
    """The workflow in a session of its own, its words in FOLDER/run.log."""
    with (folder / "run.log").open("ab") as log:
        return subprocess.Popen(
            command(folder, cores),
            cwd=folder,
            env=environment(folder),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@contextmanager
def started(folder: Path, cores: int) -> Iterator[subprocess.Popen]:
    """The workflow at work; in the end, whatever ends it, its whole tree is killed by -9."""
    process = start(folder, cores)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def environment(folder: Path) -> dict[str, str]:
    """As a user's: compiled modules are kept, here beside the cohorts."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder.parent / "compiled")}


def run(folder: Path, cores: int) -> Cost:
    """Run the workflow to its end."""
    cost, begun, done = Cost(), time.monotonic(), 0
    process = start(folder, cores)
    try:
        while not done:
            _look(process.pid, cost)
            if not cost.first_job_s and (folder / "results/benchmarks/fetch").exists():
                cost.first_job_s = time.monotonic() - begun
            time.sleep(_POLL_S)
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
    finally:
        if not done:
            os.killpg(process.pid, signal.SIGKILL)
    process.returncode = cost.exit_code = os.waitstatus_to_exitcode(status)
    cost.wall_s, cost.cpu_s = time.monotonic() - begun, usage.ru_utime + usage.ru_stime
    return cost


def _look(main: int, cost: Cost) -> None:
    """Note the main process's own CPU time and peak so far, and the peak of what runs below it."""
    for pid in (main, *_below(main)):
        try:
            peak_mb = int(_field(Path(f"/proc/{pid}/status").read_text(), "VmHWM:")) / 1024
            times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue  # it ended meanwhile
        if pid == main:
            cost.snakemake_mb = max(cost.snakemake_mb, peak_mb)
            cost.snakemake_cpu_s = max(cost.snakemake_cpu_s, (int(times[11]) + int(times[12])) * _TICK_S)
        else:
            cost.job_mb = max(cost.job_mb, peak_mb)


def _field(text: str, name: str) -> str:
    return text.partition(name)[2].split(None, 1)[0] if name in text else "0"


def _below(pid: int) -> Iterator[int]:
    """Descendants of a process."""
    try:
        children = [
            child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
        ]
    except OSError:
        return  # it ended meanwhile
    for child in map(int, children):
        yield child
        yield from _below(child)


def stage_seconds(folder: Path) -> dict[str, tuple[int, float, float]]:
    """Stage -> (jobs, seconds in all, peak MB), from the rules' benchmark files."""
    found = {}
    for stage in STAGES:
        rows = []
        for path in (folder / "results/benchmarks").glob(f"{stage}*"):
            for file in [path] if path.is_file() else path.rglob("*.tsv"):
                rows += csv.DictReader(file.read_text().splitlines(), delimiter="\t")
        peaks = [float(row["max_rss"]) for row in rows if row["max_rss"] not in ("NA", "-")]
        found[stage] = (len(rows), sum(float(row["s"]) for row in rows), max(peaks, default=0.0))
    return found


def usage(folder: Path) -> tuple[int, int]:
    """(bytes on disk, files) below a folder."""
    entries = [path.lstat() for path in folder.rglob("*") if path.is_file()]
    return sum(entry.st_blocks * 512 for entry in entries), len(entries)


def digests(folder: Path) -> dict[str, str]:
    """Shards, cases.tsv and quarantine.tsv by their bytes."""
    paths = [*folder.glob("results/shards/**/*.h5"), *folder.glob("results/cohort/*.tsv")]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)
    }


def lost_and_wrong(folder: Path, codes: dict[str, str]) -> list[str]:
    """Cases that are neither among the good nor set aside with their code, in words."""
    planned = [case_id(row["case"]) for row in csv.DictReader((folder / "cohort.csv").read_text("utf-8").splitlines())]
    good = {row["case"] for row in read_table(folder / "results/cohort/cases.tsv")}
    bad = {row["case"]: row["code"] for row in read_table(folder / "results/cohort/quarantine.tsv")}
    wrong = [
        f"{case}: expected ok, found {bad.get(case)}" for case in planned if case not in codes and case not in good
    ]
    wrong += [
        f"{case}: expected {code}, found {bad.get(case)}" for case, code in codes.items() if bad.get(case) != code
    ]
    return wrong + [f"{len(good) + len(bad)} cases of {len(planned)}"] * (len(good) + len(bad) != len(planned))


def measure(folder: Path, cases: int, cores: int, broken: float) -> list[tuple[str, float, str]]:
    """Rows (what, value, unit) of one run; stops in words where a case is lost or wrongly judged."""
    codes = make_cohort(folder, cases, broken=broken)
    cost = run(folder, cores)
    if cost.exit_code:
        last = (folder / "run.log").read_text(encoding="utf-8", errors="replace").splitlines()[-30:]
        sys.exit("\n".join([f"the workflow ended with {cost.exit_code}; its last words:", *last]))
    if wrong := lost_and_wrong(folder, codes):
        sys.exit("lost or wrongly judged: " + "; ".join(wrong[:5]))
    stages, (disk, files) = stage_seconds(folder), usage(folder / "results")
    state_disk, state_files = usage(folder / ".snakemake")
    job_s = sum(seconds for _, seconds, _ in stages.values())
    job_mb = max(cost.job_mb, *(peak for _, _, peak in stages.values()))
    rows = [
        ("cases", cases, ""),
        ("cores", cores, ""),
        ("cases ok", cases - len(codes), ""),
        ("cases set aside", len(codes), ""),
        ("jobs", sum(count for count, _, _ in stages.values()), ""),
        ("wall time", cost.wall_s, "s"),
        ("CPU time", cost.cpu_s, "s"),
        ("until the first job", cost.first_job_s, "s"),
        ("Snakemake's own CPU", 1000 * cost.snakemake_cpu_s / cases, "ms per case"),
        ("cores without a job", 1000 * (cost.wall_s * cores - job_s) / cases, "ms per case"),
    ]
    for stage, (count, seconds, _) in stages.items():
        rows.append((f"stage {stage}", 1000 * seconds / max(count, 1), "ms per job"))
    rows += [
        ("peak of the largest job", job_mb, "MB"),
        ("peak of Snakemake", cost.snakemake_mb, "MB"),
        ("disk, results", disk / 1e6, "MB"),
        ("disk, Snakemake's notes", state_disk / 1e6, "MB"),
        ("files, results", files, ""),
        ("files, Snakemake's notes", state_files, ""),
        ("longest command", longest_command(folder), "bytes"),
    ]
    found = Counter(row["code"] for row in read_table(folder / "results/cohort/quarantine.tsv"))
    return rows + [(f"set aside, {code}", count, "") for code, count in sorted(found.items())]


def longest_command(folder: Path) -> int:
    """Bytes of the longest shell command that a rule ran, from Snakemake's notes."""
    longest = 0
    for path in (folder / ".snakemake/metadata").rglob("*"):
        if path.is_file():
            longest = max(longest, len((json.loads(path.read_text()).get("shellcmd") or "").encode()))
    return longest


def extrapolate(rows: list[tuple[str, float, str]], small: list[tuple[str, float, str]]) -> None:
    """The straight line through this run and a `small` one, and what is then beyond a limit."""
    value, origin = ({name: number for name, number, _ in some} for some in (rows, small))
    growing = ("wall time", "peak of Snakemake", "disk, results", "files, results", "files, Snakemake's notes")
    for name, cases in COHORTS.items():
        factor = (cases - origin["cases"]) / (value["cases"] - origin["cases"])
        print(f"\n{name}, {cases} cases of this size on {value['cores']:.0f} cores:")
        for what, _, unit in rows:
            if what in growing:
                print(f"    {what:<28}{origin[what] + (value[what] - origin[what]) * factor:>14,.0f} {unit}")
        named = -(-cases // CASES_PER_SHARD) * len("results/shards/dataset/train-00000-of-00000.h5 ")
        if named > ARGUMENT_BYTES:
            print(
                f"    breaks: train and report name every shard, {named:,} bytes; a command may have {ARGUMENT_BYTES:,}"
            )


def made(folder: Path) -> list[Path]:
    """Results so far: records of cases, X-rays, shards."""
    return [path for pattern in ("*/*/case.json", "*/*/*.h5") for path in folder.glob(f"results/{pattern}")]


def kill_often(folder: Path, cases: int, cores: int, broken: float, kills: int, seed: int) -> bool:
    """Compare an undisturbed run with one whose process tree is killed at random times; prints, and tells if alike."""
    undisturbed, killed = folder / "undisturbed", folder / "killed"
    folder.mkdir(exist_ok=True)
    codes = make_cohort(undisturbed, cases, broken=broken)
    # Made anew, the files would hold another time of day, and shards keep their hash.
    shutil.copytree(undisturbed, killed)
    cost = run(undisturbed, cores)
    chance, hits = random.Random(seed), 0
    for goal in sorted(chance.sample(range(len(made(undisturbed))), kills)):
        with started(killed, cores) as process:
            while process.poll() is None and len(made(killed)) <= goal:
                time.sleep(0.05)
            time.sleep(chance.uniform(0.0, 0.5))
            hits += process.poll() is None
        print(f"killed with {len(made(killed))} of {len(made(undisturbed))} results there", flush=True)
    last = run(killed, cores)
    wrong = lost_and_wrong(killed, codes) if not last.exit_code else [f"exit {last.exit_code}"]
    same = digests(undisturbed) == digests(killed)
    leftovers = [path.name for path in killed.glob("results/**/.*tmp*")]
    print(f"{hits} kills hit a run at work; the last run ended with {last.exit_code}")
    print(f"shards, cases and quarantine byte-identical: {'yes' if same else 'NO'} ({len(digests(killed))} files)")
    print(
        f"lost or wrongly judged: {'; '.join(wrong[:5]) or 'none'}; half files left: {', '.join(leftovers) or 'none'}"
    )
    return same and not wrong and not leftovers and not cost.exit_code


def show(rows: list[tuple[str, float, str]]) -> None:
    for name, number, unit in rows:
        print(f"{name:<28}{number:>12,.{0 if float(number).is_integer() else 1}f} {unit}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the cohorts and scale.csv; made anew")
    parser.add_argument("--cases", type=int, default=1000, help="cases of the cohort (1000)")
    parser.add_argument("--cores", type=int, default=2, help="jobs at a time (2)")
    parser.add_argument("--broken", type=float, default=0.05, help="fraction of broken cases (0.05)")
    parser.add_argument("--stages-scaling", action="store_true", help="60 cases on 1 and on 2 cores")
    parser.add_argument("--kills", type=int, default=0, help="compare with a run that is killed this often")
    parser.add_argument("--seed", type=int, default=1, help="of the times of the kills (1)")
    parser.add_argument("--keep", action="store_true", help="keep the cohorts and results")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = options.out / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        if options.kills:
            return not kill_often(work, options.cases, options.cores, options.broken, options.kills, options.seed)
        if options.stages_scaling:
            both = [measure(work / f"cores-{cores}", 60, cores, options.broken) for cores in (1, 2)]
            for (name, one, unit), (_, two, _) in zip(*both, strict=True):
                print(f"{name:<28}{one:>12,.1f}{two:>12,.1f} {unit}")
            return 0
        rows = measure(work / "cohort", options.cases, options.cores, options.broken)
        show(rows)
        extrapolate(rows, measure(work / "small", SMALL_CASES, options.cores, 0.0))
        with (options.out / "scale.csv").open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows([("what", "value", "unit"), *rows])
        return 0
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
