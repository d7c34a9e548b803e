"""INPUT  results/shards/{dataset}/train-*.h5, and *validation-*.h5 to watch
OUTPUT results/train/{run}/model.pt     with model.pt.sha256 and train.csv beside it
"""


def run_value(key):
    """A named function of the wildcards that looks up one key of the run."""

    def value(wildcards):
        return EXPERIMENT["runs"][wildcards.run][key]

    return value


def train_shards(wildcards):
    if EXPERIMENT["runs"][wildcards.run]["model"] == "backprojection":
        return shards_of("train") or report_shards(wildcards)  # nothing to learn: any shard tells grid and views
    if not PLAN.unknown and not any(case.split == "train" for case in PLAN.cases.values()):
        stop(f"run {wildcards.run} has no case to train on; give a case of the cohort the split 'train', or remove the run.")
    return shards_of("train") or stop("no case of split 'train' is usable; see results/cohort/quarantine.tsv.")


def watch_shards(wildcards):
    return shards_of("validation", "family_validation")


def watch_option(wildcards, input):
    return ["--watch", *input.watch] if input.watch else []


def train_settings(wildcards):
    return json.dumps(EXPERIMENT["runs"][wildcards.run]["settings"], sort_keys=True)


def train_threads(wildcards):
    return 8 if EXPERIMENT["runs"][wildcards.run]["model"] == "spider" else 1


rule train:
    input:
        train=train_shards,
        watch=watch_shards,
    output:
        model="results/train/{run}/model.pt",
        digest="results/train/{run}/model.pt.sha256",
        log="results/train/{run}/train.csv",
    log:
        "results/logs/train/{run}.log",
    benchmark:
        "results/benchmarks/train/{run}.tsv"
    threads: train_threads
    resources:
        mem_mb=6000,
    conda:
        "../envs/xr2ct.yaml"
    params:
        model=run_value("model"),
        simulator=run_value("simulator"),
        settings=train_settings,
        watch=watch_option,
        window=EXPERIMENT["window_hu"],
        seed=EXPERIMENT["seed"],
        device=EXPERIMENT["device"],
        version=LEARNING_VERSION["train"],
    shell:
        "python -m xr2ct train --model {params.model:q} --simulator {params.simulator:q} --shards {input.train:q}"
        " {params.watch:q} --settings {params.settings:q} --window {params.window:q} --seed {params.seed:q}"
        " --device {params.device:q} --threads {threads} --out results/train/{wildcards.run:q} 2>&1 | tee {log:q}"
