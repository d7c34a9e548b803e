"""What the workflow changes inside Snakemake, asked of the installed one while it runs."""

import subprocess
import sys

import pytest

from tests.cohorts import clean_environment, command, good_rows, write_cohort

PROBE = """
import sys
from snakemake.cli import main
from snakemake.scheduling.job_scheduler import JobScheduler
begin = JobScheduler.run
def run(self, *given, **named):
    limit = self.job_rate_limiter
    print("LIMIT", limit and (limit.max_jobs, limit.timespan), file=sys.stderr)
    return begin(self, *given, **named)
JobScheduler.run = run
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("asked", "limit"), [((), "None"), (("--max-jobs-per-timespan", "7/2s"), "(7, 2")])
def test_the_default_job_rate_is_lifted_and_a_users_own_stays(tmp_path, asked, limit):
    """With it the main process drowned in looks at waiting jobs after 5000 jobs (pipeline/rules/common.smk)."""
    write_cohort(tmp_path, good_rows(tmp_path)[:1])
    arguments = command(tmp_path, "results/fetch/a/case.json", *asked)[3:]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("LIMIT")]
    assert told and all(line.startswith(f"LIMIT {limit}") for line in told), told
