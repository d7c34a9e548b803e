"""INPUT  results/shards/{dataset}/train-*.h5, the shards of the splits to report, results/reconstruct/{run}/index.json
OUTPUT results/judge/nnunet/judge.json   the segmenter, trained on true CTs; judge.json is written last
       results/judge/{judge}/{run}.csv   its scores of a run, rows as in results/evaluate
       results/judge/{judge}/true-ct.csv   of the CTs themselves: the most that any run can reach

Only where judge asks for one, or for several. TotalSegmentator is not trained: it needs its weights.
"""

from pipeline.runs import TRUE_CT

JUDGES = {judge["kind"]: judge for judge in EXPERIMENT["judge"]}


def judgements(wildcards):
    """Every judge's scores of every run and of the true CTs; nothing without a judge."""
    return expand("results/judge/{judge}/{run}.csv", judge=JUDGES, run=[TRUE_CT, *EXPERIMENT["runs"]])


def judge_shards(wildcards):
    return shards_of("train") or stop("no case of split 'train' is usable for the judge; see results/cohort/quarantine.tsv.")


def judge_model(wildcards):
    return "results/judge/nnunet/judge.json" if wildcards.judge == "nnunet" else []


def judge_name(wildcards):
    return "results/judge/nnunet" if wildcards.judge == "nnunet" else wildcards.judge


def judge_size(wildcards):
    if "nnunet" not in JUDGES:
        stop("judge names no kind nnunet, so there is none to train; add it to the config.")
    return JUDGES["nnunet"]["size"]


rule judge_train:
    input:
        judge_shards,
    output:
        "results/judge/nnunet/judge.json",
    log:
        "results/logs/judge/train.log",
    benchmark:
        "results/benchmarks/judge/train.tsv"
    threads: 8
    resources:
        mem_mb=8000,
    conda:
        "../envs/judge.yaml"
    params:
        size=judge_size,
        seed=EXPERIMENT["seed"],
        device=EXPERIMENT["device"],
        version=LEARNING_VERSION["judge"],
    shell:
        "python -m xr2ct judge-train --kind nnunet --size {params.size:q} --shards {input:q} --seed {params.seed:q}"
        " --device {params.device:q} --threads {threads} --out results/judge/nnunet 2>&1 | tee {log:q}"


rule judge:
    input:
        model=judge_model,
        shards=report_shards,
        reconstructions="results/reconstruct/{run}/index.json",
    output:
        "results/judge/{judge}/{run}.csv",
    log:
        "results/logs/judge/{judge}/{run}.log",
    benchmark:
        "results/benchmarks/judge/{judge}/{run}.tsv"
    threads: 8
    resources:
        mem_mb=8000,
    conda:
        "../envs/judge.yaml"
    params:
        judge=judge_name,
        device=EXPERIMENT["device"],
        version=LEARNING_VERSION["judge"],
    shell:
        "python -m xr2ct judge --judge {params.judge:q} --shards {input.shards:q}"
        " --reconstructions {input.reconstructions:q} --device {params.device:q} --threads {threads} --out {output:q}"
        " > {log:q} 2>&1"


rule judge_true_cts:
    input:
        model=judge_model,
        shards=report_shards,
    output:
        f"results/judge/{{judge}}/{TRUE_CT}.csv",
    log:
        f"results/logs/judge/{{judge}}/{TRUE_CT}.log",
    benchmark:
        f"results/benchmarks/judge/{{judge}}/{TRUE_CT}.tsv"
    threads: 8
    resources:
        mem_mb=8000,
    conda:
        "../envs/judge.yaml"
    params:
        judge=judge_name,
        device=EXPERIMENT["device"],
        version=LEARNING_VERSION["judge"],
    shell:
        "python -m xr2ct judge --judge {params.judge:q} --shards {input.shards:q} --device {params.device:q}"
        " --threads {threads} --out {output:q} > {log:q} 2>&1"
