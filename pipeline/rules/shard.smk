"""INPUT  case.json and results/project/{simulator}/{case}.h5 of up to 32 cases of one data set and split
OUTPUT results/shards/{dataset}/{split}-{number}-of-{total}.h5   schema xr2ct/shard, see resources/shard.md
"""

SIMULATORS = sorted(EXPERIMENT["simulators"])


def shard_records(wildcards):
    stage = ("label", "derive")
    return [f"results/{stage[case in plan().derived]}/{case}/case.json" for case in shard_cases(wildcards)]


def shard_projections(wildcards):
    return expand("results/project/{simulator}/{case}.h5", simulator=SIMULATORS, case=shard_cases(wildcards))


rule shard:
    input:
        cohort="results/cohort/cases.tsv",
        records=shard_records,
        projections=shard_projections,
    output:
        "results/shards/{dataset}/{split}-{number}-of-{total}.h5",
    log:
        "results/logs/shard/{dataset}/{split}-{number}-of-{total}.log",
    benchmark:
        "results/benchmarks/shard/{dataset}/{split}-{number}-of-{total}.tsv"
    threads: 1
    retries: RETRIES
    resources:
        mem_mb=more_each_time(2000),
    conda:
        "../envs/pipeline.yaml"
    params:
        simulators=SIMULATORS,
        config=DATA_CONFIG,
        version=RESULT_VERSION["shard"],
    shell:
        "python -m pipeline shard {input.records:q} --projections results/project --simulators {params.simulators:q}"
        " --index {wildcards.number:q} --count {wildcards.total:q} --config {params.config:q} --out {output:q} 2> {log:q}"
