"""INPUT  results/ingest/{case}/case.json
OUTPUT results/label/{case}/case.json   and label.nii.gz beside it
"""


rule label:
    input:
        "results/ingest/{case}/case.json",
    output:
        "results/label/{case}/case.json",
    log:
        "results/logs/label/{case}.log",
    benchmark:
        "results/benchmarks/label/{case}.tsv"
    threads: 1
    resources:
        mem_mb=3000,
    conda:
        "../envs/pipeline.yaml"
    params:
        structures=EXPERIMENT["structures"],
        version=RESULT_VERSION["label"],
    shell:
        "python -m pipeline label {input:q} --structures {params.structures:q}"
        " --out results/label/{wildcards.case:q} 2> {log:q}"
