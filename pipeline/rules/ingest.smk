"""INPUT  results/fetch/{case}/case.json
OUTPUT results/ingest/{case}/case.json  and ct.nii.gz beside it, unless the case is set aside
"""


rule ingest:
    input:
        "results/fetch/{case}/case.json",
    output:
        "results/ingest/{case}/case.json",
    log:
        "results/logs/ingest/{case}.log",
    benchmark:
        "results/benchmarks/ingest/{case}.tsv"
    threads: 1
    resources:
        mem_mb=3000,
    conda:
        "../envs/pipeline.yaml"
    params:
        cube=EXPERIMENT["grid"]["shape"],
        spacing_mm=EXPERIMENT["grid"]["spacing_mm"],
        version=RESULT_VERSION["ingest"],
    shell:
        "python -m pipeline ingest {input:q} --cube {params.cube:q} --spacing-mm {params.spacing_mm:q}"
        " --out results/ingest/{wildcards.case:q} 2> {log:q}"
