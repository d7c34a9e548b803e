"""INPUT  results/ingest/{case}/case.json
OUTPUT results/label/{case}/case.json   and label.nii.gz beside it; with region vertebra both are of {case}-L1, ...
"""

VERTEBRAE = " --vertebrae" if EXPERIMENT["region"]["kind"] == "vertebra" else ""


rule label:
    input:
        expand("results/ingest/{{case}}{suffix}/case.json", suffix=case_suffixes(EXPERIMENT)),
    output:
        expand("results/label/{{case}}{suffix}/case.json", suffix=case_suffixes(EXPERIMENT)),
    log:
        "results/logs/label/{case}.log",
    benchmark:
        "results/benchmarks/label/{case}.tsv"
    threads: 1
    retries: RETRIES
    resources:
        mem_mb=more_each_time(3000),
    conda:
        "../envs/pipeline.yaml"
    params:
        structures=EXPERIMENT["structures"],
        version=RESULT_VERSION["label"],
    shell:
        "python -m pipeline label {input:q} --structures {params.structures:q}"
        + VERTEBRAE
        + " --out results/label/{wildcards.case:q} 2> {log:q}"
