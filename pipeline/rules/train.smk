"""INPUT  results/shards/{dataset}/train-*.h5 (or another split, where the run has train_on), *validation-*.h5 to watch,
       and results/train/{start}/model.pt of the run to begin from, if any
OUTPUT results/train/{run}/model.pt     with model.pt.sha256 and train.csv beside it
"""

from pipeline.runs import NOTHING_TO_LEARN


def run_value(key):
    """A named function of the wildcards that looks up one key of the run."""

    def value(wildcards):
        return EXPERIMENT["runs"][wildcards.run][key]

    return value


def train_shards(wildcards):
    """Shards of the run's split; the dry run stops where the cohort has no case of it."""
    run = EXPERIMENT["runs"][wildcards.run]
    split = run["train_on"]
    if run["model"] == "backprojection":
        return shards_of(split) or report_shards(wildcards)  # nothing to learn: any shard tells grid and views
    if not PLAN.unknown and not any(case.split == split for case in (*PLAN.cases.values(), *PLAN.derived.values())):
        stop(
            f"run {wildcards.run} has no case to train on; give a case of the cohort (or a derived one) the split "
            f"{split!r}, or remove the run."
        )
    return shards_of(split) or stop(f"no case of split {split!r} is usable; see results/cohort/quarantine.tsv.")


def watch_shards(wildcards):
    trained_on = EXPERIMENT["runs"][wildcards.run]["train_on"]
    return shards_of(*{"validation", "family_validation"} - {trained_on})


def start_model(wildcards):
    """The trained model to begin from, with its digest."""
    start = EXPERIMENT["runs"][wildcards.run]["start"]
    return [f"results/train/{start}/model.pt", f"results/train/{start}/model.pt.sha256"] if start else []


def begin_options(wildcards, input):
    watch = ["--watch", *input.watch] if input.watch else []
    return watch + (["--start", input.start[0]] if input.start else [])


def limit_option(wildcards):
    limit = EXPERIMENT["runs"][wildcards.run]["limit"]
    return ["--limit", limit] if limit else []


def train_settings(wildcards):
    return json.dumps(EXPERIMENT["runs"][wildcards.run]["settings"], sort_keys=True)


def train_threads(wildcards):
    return 1 if EXPERIMENT["runs"][wildcards.run]["model"] in NOTHING_TO_LEARN else 8


rule train:
    input:
        train=train_shards,
        watch=watch_shards,
        start=start_model,
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
        begin=begin_options,
        limit=limit_option,
        window=EXPERIMENT["window_hu"],
        seed=run_value("seed"),
        device=EXPERIMENT["device"],
        version=LEARNING_VERSION["train"],
    shell:
        "python -m xr2ct train --model {params.model:q} --simulator {params.simulator:q} --shards {input.train:q}"
        " {params.begin:q} {params.limit:q} --settings {params.settings:q} --window {params.window:q}"
        " --seed {params.seed:q} --device {params.device:q} --threads {threads} --out results/train/{wildcards.run:q}"
        " 2>&1 | tee {log:q}"
