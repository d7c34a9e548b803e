"""INPUT  results/fetch/{case}/case.json, or results/segment/{case}/case.json where TotalSegmentator labels
OUTPUT results/ingest/{case}/case.json  and ct.nii.gz beside it, unless the case is set aside; with region vertebra
       results/ingest/{case}-L1/case.json, ... for every vertebra that the config names
"""

REGION = EXPERIMENT["region"]
INGEST_OPTIONS = [] if REGION["kind"] == "cube" else ["--region", REGION["kind"]]
if REGION["kind"] in ("structures", "vertebra"):
    INGEST_OPTIONS += ["--along", *REGION["structures" if REGION["kind"] == "structures" else "vertebrae"]]

if EXPERIMENT["strict"]:
    INGEST_OPTIONS.append("--strict")


rule ingest:
    input:
        "results/fetch/{case}/case.json" if EXPERIMENT["labels"]["missing"] == "none" else "results/segment/{case}/case.json",
    output:
        expand("results/ingest/{{case}}{suffix}/case.json", suffix=case_suffixes(EXPERIMENT)),
    log:
        "results/logs/ingest/{case}.log",
    benchmark:
        "results/benchmarks/ingest/{case}.tsv"
    threads: 1
    retries: RETRIES
    resources:
        mem_mb=more_each_time(3000),
    conda:
        "../envs/pipeline.yaml"
    params:
        cube=EXPERIMENT["grid"]["shape"],
        spacing_mm=EXPERIMENT["grid"]["spacing_mm"],
        options=INGEST_OPTIONS,
        version=RESULT_VERSION["ingest"],
    shell:
        "python -m pipeline ingest {input:q} --cube {params.cube:q} --spacing-mm {params.spacing_mm:q}"
        " {params.options:q} --out results/ingest/{wildcards.case:q} 2> {log:q}"
