"""xr2ct: from CT to a report. `snakemake --cores 8 --use-conda` runs config.yaml; `snakemake shards` stops at the data."""

from snakemake.utils import min_version

min_version("9.27")

if not workflow.config_settings.configfiles:

    configfile: "config.yaml"


include: "pipeline/rules/common.smk"
include: "pipeline/rules/fetch.smk"
include: "pipeline/rules/segment.smk"
include: "pipeline/rules/ingest.smk"
include: "pipeline/rules/label.smk"
include: "pipeline/rules/cohort.smk"
include: "pipeline/rules/derive.smk"
include: "pipeline/rules/project.smk"
include: "pipeline/rules/shard.smk"
include: "pipeline/rules/radiographs.smk"
include: "pipeline/rules/train.smk"
include: "pipeline/rules/reconstruct.smk"
include: "pipeline/rules/evaluate.smk"
include: "pipeline/rules/judge.smk"
include: "pipeline/rules/report.smk"


rule all:
    default_target: True
    input:
        "results/report/index.html" if EXPERIMENT["runs"] and EXPERIMENT["report_splits"] else all_shards,


rule shards:
    input:
        all_shards,


onstart:
    lift_job_rate()


onsuccess:
    finish()
