"""INPUT  results/ingest/{case}/case.json
OUTPUT results/label/{case}/case.json   and label.nii.gz beside it
"""

LABELLER = EXPERIMENT["labels"]["missing"]


rule label:
    input:
        "results/ingest/{case}/case.json",
    output:
        "results/label/{case}/case.json",
    log:
        "results/logs/label/{case}.log",
    benchmark:
        "results/benchmarks/label/{case}.tsv"
    threads: 1 if LABELLER == "none" else 8
    resources:
        mem_mb=3000 if LABELLER == "none" else 12000,
    conda:
        "../envs/pipeline.yaml" if LABELLER == "none" else "../envs/totalsegmentator.yaml"
    params:
        structures=EXPERIMENT["structures"],
        missing=LABELLER,
        device=EXPERIMENT["labels"]["device"],
        version=RESULT_VERSION["label"],
    shell:
        "python -m pipeline label {input:q} --structures {params.structures:q} --missing {params.missing:q}"
        " --device {params.device:q} --out results/label/{wildcards.case:q} > {log:q} 2>&1"
