"""INPUT  results/reconstruct/{run}/index.json, and the shards it was made from
OUTPUT results/evaluate/{run}.csv       one row per case, metric and structure
"""


def legacy_option():
    return ["--legacy"] if EXPERIMENT["legacy"] else []


rule evaluate:
    input:
        reconstructions="results/reconstruct/{run}/index.json",
        shards=report_shards,
    output:
        "results/evaluate/{run}.csv",
    log:
        "results/logs/evaluate/{run}.log",
    benchmark:
        "results/benchmarks/evaluate/{run}.tsv"
    threads: 1
    resources:
        mem_mb=3000,
    conda:
        "../envs/xr2ct.yaml"
    params:
        window=EXPERIMENT["window_hu"],
        legacy=legacy_option(),
        version=LEARNING_VERSION["evaluate"],
    shell:
        "python -m xr2ct evaluate --reconstructions {input.reconstructions:q} --shards {input.shards:q}"
        " --window {params.window:q} {params.legacy:q} --out {output:q} 2> {log:q}"
