"""INPUT  results/label/{case}/case.json of a real case that goes on
OUTPUT results/radiographs/{case}.png  contact sheet of its simulated X-rays, for the report
"""


LARGEST_FIGURE_COUNT = 8  # a page of a thousand cases must stay one that opens; the others can be asked for by name


def report_figures(wildcards):
    """Sheets of the first real cases; derived ones look alike."""
    cases = sorted(case for cases in cases_by_shard().values() for case in cases if case in PLAN.cases)
    return [f"results/radiographs/{case}.png" for case in cases[:LARGEST_FIGURE_COUNT]]


rule radiographs:
    input:
        "results/label/{case}/case.json",
    output:
        "results/radiographs/{case}.png",
    log:
        "results/logs/radiographs/{case}.log",
    benchmark:
        "results/benchmarks/radiographs/{case}.tsv"
    threads: 1
    resources:
        mem_mb=3000,
    conda:
        "../envs/pipeline.yaml"
    params:
        seed=EXPERIMENT["seed"],
        version=RESULT_VERSION["project"],
    shell:
        "python -m pipeline radiographs {input:q} --seed {params.seed:q} --out {output:q} 2> {log:q}"
