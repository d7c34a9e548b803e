"""INPUT  results/label/{case}/case.json of every planned case
OUTPUT results/cohort/cases.tsv         who goes on
       results/cohort/quarantine.tsv    who does not, and why
"""


checkpoint cohort:
    input:
        expand("results/label/{case}/case.json", case=PLAN.cases),
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
        fraction=EXPERIMENT["max_quarantine_fraction"],
        version=RESULT_VERSION["cohort"],
    shell:
        "python -m pipeline cohort {input:q} --max-quarantine-fraction {params.fraction:q}"
        " --out results/cohort 2> {log:q}"
