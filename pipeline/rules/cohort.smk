"""INPUT  results/label/{case}/case.json of every planned case
OUTPUT results/cohort/cases.tsv         who goes on
       results/cohort/quarantine.tsv    who does not, and why
       results/cohort/index.html        both, for people; stays where the job fails, and says why
"""


CASE_LIST = Path(".snakemake/xr2ct.records")


def label_records(wildcards):
    """Also listed in a file: the names of more than some thousand cases are longer than a command may be."""
    paths = expand("results/label/{case}/case.json", case=plan().cases)
    if workflow.is_main_process and not workflow.dryrun:
        write_text(CASE_LIST, "\n".join(paths))
    return paths


checkpoint cohort:
    input:
        label_records,
    output:
        cases="results/cohort/cases.tsv",
        quarantine="results/cohort/quarantine.tsv",
    log:
        "results/logs/cohort.log",
    benchmark:
        "results/benchmarks/cohort.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    conda:
        "../envs/pipeline.yaml"
    params:
        records=str(CASE_LIST),
        fraction=EXPERIMENT["max_quarantine_fraction"],
        version=RESULT_VERSION["cohort"],
    shell:
        "python -m pipeline cohort --listed-in {params.records:q} --max-quarantine-fraction {params.fraction:q}"
        " --out results/cohort 2> {log:q}"
