"""INPUT  case.json of a labelled or derived case
OUTPUT results/project/{simulator}/{case}.h5
"""


BACKEND_ENVS = {"astra": "../envs/cil.yaml", "cil": "../envs/cil.yaml", "deepdrr": "../envs/deepdrr.yaml"}


def project_environment(wildcards):
    backend = EXPERIMENT["simulators"][wildcards.simulator]["backend"]
    return BACKEND_ENVS.get(backend, "../envs/pipeline.yaml")


def project_arguments(wildcards):
    simulator = EXPERIMENT["simulators"][wildcards.simulator]
    arguments = []
    for name, value in {**simulator, "seed": EXPERIMENT["seed"]}.items():
        values = value if isinstance(value, list) else [value]
        arguments += ["--" + name.replace("_", "-")]
        arguments += [json.dumps(item) if isinstance(item, dict) else item for item in values]
    return arguments


rule project:
    input:
        record_of,
    output:
        "results/project/{simulator}/{case}.h5",
    log:
        "results/logs/project/{simulator}/{case}.log",
    benchmark:
        "results/benchmarks/project/{simulator}/{case}.tsv"
    threads: 1
    retries: RETRIES
    resources:
        mem_mb=more_each_time(2000),
    conda:
        project_environment
    params:
        arguments=project_arguments,
        version=RESULT_VERSION["project"],
    shell:
        "python -m pipeline project {input:q} {params.arguments:q} --out {output:q} 2> {log:q}"
