"""INPUT  results/train/{run}/model.pt, and the shards of the splits to report
OUTPUT results/reconstruct/{run}/index.json   with <case>/ct.nii.gz and label.nii.gz beside it
"""


rule reconstruct:
    input:
        model="results/train/{run}/model.pt",
        digest="results/train/{run}/model.pt.sha256",
        shards=report_shards,
    output:
        "results/reconstruct/{run}/index.json",
    log:
        "results/logs/reconstruct/{run}.log",
    benchmark:
        "results/benchmarks/reconstruct/{run}.tsv"
    threads: train_threads
    resources:
        mem_mb=6000,
    conda:
        "../envs/xr2ct.yaml"
    params:
        device=EXPERIMENT["device"],
        version=LEARNING_VERSION["reconstruct"],
    shell:
        "python -m xr2ct reconstruct --checkpoint {input.model:q} --shards {input.shards:q} --device {params.device:q}"
        " --threads {threads} --out results/reconstruct/{wildcards.run:q} 2>&1 | tee {log:q}"
