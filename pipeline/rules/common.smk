"""What every rule needs: the checked experiment, the plan of its cases, and where their files are."""

import json
import os
import shutil
import sys
import time
from functools import cache
from pathlib import Path

from snakemake.settings.types import DeploymentMethod

sys.path.insert(0, workflow.basedir)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [workflow.basedir, os.environ.get("PYTHONPATH")]))

from pipeline.config import check_config, structures_to_label
from pipeline.errors import UserError
from pipeline.files import read_table, write_text
from pipeline.locks import hold_run
from pipeline.parts import fingerprint
from pipeline.plan import CASE_ID, case_suffixes, make_plan
from pipeline.shard_file import CASES_PER_SHARD
from pipeline.versions import RESULT_VERSION
from xr2ct.versions import RESULT_VERSION as LEARNING_VERSION


def stop(message):
    """End in words, without a traceback."""
    print(f"ERROR: {message}", file=sys.stderr)
    sys.exit(2)


try:
    EXPERIMENT = check_config(config)
    PLAN = make_plan(EXPERIMENT, Path.cwd())
except UserError as error:
    stop(error)

if workflow.is_main_process and not workflow.dryrun:
    RUN = hold_run(Path.cwd())
    if "XR2CT_SUBJECT_SECRET" not in os.environ and any(entry["source"] == "folder" for entry in EXPERIMENT["cohort"]):
        print(
            "note: XR2CT_SUBJECT_SECRET is not set, so anybody who guesses the id of one of your patients can tell from a "
            "shard whether it is in there. Set it to words of your own where the ids are private, and keep them.",
            file=sys.stderr,
        )

methods = workflow.deployment_settings.deployment_method
if DeploymentMethod.CONDA in methods and not shutil.which("conda"):
    if "XR2CT_NO_CONDA" not in os.environ:
        print("note: there is no conda here; every rule runs in the current Python environment.", file=sys.stderr)
        os.environ["XR2CT_NO_CONDA"] = "noted"
    workflow.deployment_settings.deployment_method = frozenset(methods) - {DeploymentMethod.CONDA}
if DeploymentMethod.CONDA not in workflow.deployment_settings.deployment_method:
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

STARTED = time.time()
SPLITS = ("train", "validation", "test", "family_validation", "family", "family_transfer")


wildcard_constraints:
    case=CASE_ID,
    dataset=r"[a-z0-9][a-z0-9-]*",
    split="|".join(SPLITS),
    simulator="|".join(EXPERIMENT["simulators"]),
    run="|".join(EXPERIMENT["runs"]) or "none",
    judge="nnunet|totalsegmentator|totalsegmentator-fast",
    number=r"\d{5}",
    total=r"\d{5}",


DATA_KEYS = ("name", "seed", "grid", "structures", "derive", "deformation", "simulators")
if EXPERIMENT["region"]["kind"] != "cube":
    DATA_KEYS += ("region",)
DATA_CONFIG = json.dumps({key: EXPERIMENT[key] for key in DATA_KEYS}, sort_keys=True)


RETRIES = 2
"""Of the stages that set a bad case aside: what still ends such a job is a full disk or memory, which may pass."""


def more_each_time(mem_mb):
    """Memory to ask for, more at every attempt."""
    return lambda wildcards, attempt: mem_mb * attempt


def list_times():
    """When the lists of the public data sets' cases were made."""
    return [path.stat().st_mtime_ns for path in PLAN.indexes if path.exists()]


PLANNED_FROM = list_times()


def plan():
    """The plan with every case; a public data set is first asked for its cases (checkpoint index)."""
    global PLAN, PLANNED_FROM
    for path in PLAN.indexes:
        checkpoints.index.get(edition=path.stem)
    if PLAN.unknown or PLANNED_FROM != list_times():
        try:
            PLAN = make_plan(EXPERIMENT, Path.cwd())
        except UserError as error:
            stop(error)
        PLANNED_FROM = list_times()
    return PLAN


def record_of(wildcards):
    """The record that the project stage reads: of the derive stage for a derived case, else of the label stage."""
    stage = "derive" if wildcards.case in plan().derived else "label"
    return f"results/{stage}/{wildcards.case}/case.json"


def cases_by_shard():
    """(dataset, split) -> cases that go on, in the order of their ids; known once the cohort checkpoint has run."""
    table = Path(checkpoints.cohort.get().output.cases)
    return group_cases(table, table.stat().st_mtime_ns)


@cache
def group_cases(table, changed_ns):
    rows = {row["case"]: row for row in read_table(table)}
    groups = {}
    for case, row in rows.items():
        groups.setdefault((row["dataset"], row["split"]), []).append(case)
    for case, derived in plan().derived.items():
        if derived.parent in rows:
            groups.setdefault((rows[derived.parent]["dataset"], derived.split), []).append(case)
    return {key: sorted(cases) for key, cases in groups.items()}


def shard_cases(wildcards):
    """The cases of one shard."""
    cases = cases_by_shard()[wildcards.dataset, wildcards.split]
    start = int(wildcards.number) * CASES_PER_SHARD
    return cases[start : start + CASES_PER_SHARD]


def shards_of(*splits):
    """Paths of all shards of some splits, over all data sets."""
    paths = []
    for (dataset, split), cases in sorted(cases_by_shard().items()):
        count = -(-len(cases) // CASES_PER_SHARD)
        if split in splits:
            paths += [f"results/shards/{dataset}/{split}-{i:05d}-of-{count:05d}.h5" for i in range(count)]
    return paths


def all_shards(wildcards):
    return shards_of(*SPLITS)


def report_shards(wildcards):
    """Shards of the splits to report."""
    paths = shards_of(*EXPERIMENT["report_splits"])
    if not paths:
        stop(f"no case is left in the splits to report: {', '.join(EXPERIMENT['report_splits'])}.")
    return paths


def lift_job_rate():
    """Drop Snakemake's default limit of 100 jobs per second; another one, asked for by the user, stays.

    Under any limit every finished job starts a chain of looks at all waiting jobs that goes on, once per time span, to the
    end of the run (Snakemake 9.27): after 5000 jobs there is time for nothing else.
    """
    limit = workflow.scheduler.job_rate_limiter
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


def finish():
    """Last words of a run: the new report's table, who was set aside, and shards that no longer belong here."""
    summary, quarantine = Path("results/report/summary.txt"), Path("results/cohort/quarantine.tsv")
    if summary.exists() and summary.stat().st_mtime > STARTED:
        print(summary.read_text(encoding="utf-8"))
    if quarantine.exists() and (bad := read_table(quarantine)):
        page = quarantine.with_name("index.html")
        print(f"{len(bad)} of {len(plan().cases)} cases were set aside: see {page}", file=sys.stderr)
    if Path("results/cohort/cases.tsv").exists():
        planned = set(shards_of(*SPLITS))
        for path in sorted(Path("results/shards").glob("*/*.h5")):
            if path.as_posix() not in planned:
                # Kept, but out of reach of *.h5: an old split read beside a new one would share a patient with it.
                path.rename(path.with_name(f"{path.name}.stale"))
                print(f"note: {path} is of an earlier configuration and is now {path.name}.stale", file=sys.stderr)
