"""INPUT  results/label/{parent}/case.json of a labelled training CT
OUTPUT results/derive/{case}/case.json  with ct.nii.gz and label.nii.gz beside it
"""


def derive_parent(wildcards):
    return f"results/label/{plan().derived[wildcards.case].parent}/case.json"


def derive_arguments(wildcards):
    case = plan().derived[wildcards.case]
    arguments = ["--case", case.id, "--split", case.split, "--number", case.number, "--seed", EXPERIMENT["seed"]]
    for name, value in (EXPERIMENT["deformation"] | case.deformation).items():
        arguments += ["--" + name.replace("_", "-"), value]
    return arguments


rule derive:
    input:
        derive_parent,
    output:
        "results/derive/{case}/case.json",
    log:
        "results/logs/derive/{case}.log",
    benchmark:
        "results/benchmarks/derive/{case}.tsv"
    threads: 1
    retries: RETRIES
    resources:
        mem_mb=more_each_time(2000),
    conda:
        "../envs/pipeline.yaml"
    params:
        arguments=derive_arguments,
        version=RESULT_VERSION["derive"],
    shell:
        "python -m pipeline derive {input:q} {params.arguments:q} --out results/derive/{wildcards.case:q} 2> {log:q}"
