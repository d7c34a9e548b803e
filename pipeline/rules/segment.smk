"""INPUT  results/fetch/{case}/case.json
OUTPUT results/segment/{case}/case.json  and label.nii.gz beside it, unless the CT brings its own labels

Only where labels.missing asks for TotalSegmentator; then the ingest stage reads these records. The package loads its
networks anew in every call, so one job per CT loses no more than its imports.
"""

LABELS = EXPERIMENT["labels"]
SEGMENT_OPTIONS = ["--fast"] if LABELS["missing"].endswith("fast") else []
if not LABELS["only_wanted"]:
    SEGMENT_OPTIONS.append("--all-classes")


rule segment:
    input:
        "results/fetch/{case}/case.json",
    output:
        "results/segment/{case}/case.json",
    log:
        "results/logs/segment/{case}.log",
    benchmark:
        "results/benchmarks/segment/{case}.tsv"
    threads: 8
    resources:
        mem_mb=12000,
    conda:
        "../envs/totalsegmentator.yaml"
    params:
        structures=structures_to_label(EXPERIMENT),
        options=SEGMENT_OPTIONS,
        device=LABELS["device"],
        version=RESULT_VERSION["segment"],
    shell:
        "python -m pipeline segment {input:q} --structures {params.structures:q} {params.options:q}"
        " --device {params.device:q} --out results/segment/{wildcards.case:q} > {log:q} 2>&1"
