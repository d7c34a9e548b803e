"""INPUT  results/fetch/{case}/case.json
OUTPUT results/segment/batch-{number}.tsv     what was done ahead for some CTs: label.nii.gz in results/segment/{case}/
       results/segment/{case}/case.json       which label map belongs to the CT: its own, or the one made ahead

Only where labels.missing asks for TotalSegmentator; then the ingest stage reads these records. Loading the package and its
networks takes longer than many a CT, so one job does it for labels.batch of them; the job of each CT then finds its label
map made. A new CT in the cohort changes its batch alone, and there only what is new is labelled.
"""

LABELS = EXPERIMENT["labels"]
SEGMENT_OPTIONS = ["--device", LABELS["device"], "--structures", *structures_to_label(EXPERIMENT)]
if LABELS["missing"].endswith("fast"):
    SEGMENT_OPTIONS.append("--fast")
if not LABELS["only_wanted"]:
    SEGMENT_OPTIONS.append("--all-classes")


def segment_batches():
    """The CTs of each job, in the order of the plan."""
    scans = list(plan().scans)
    return [scans[start : start + LABELS["batch"]] for start in range(0, len(scans), LABELS["batch"])]


def batch_records(wildcards):
    return expand("results/fetch/{case}/case.json", case=segment_batches()[int(wildcards.number)])


def batch_table(wildcards):
    """Of the batch that a CT is in."""
    return f"results/segment/batch-{list(plan().scans).index(wildcards.case) // LABELS['batch']:05d}.tsv"


rule segment_ahead:
    input:
        batch_records,
    output:
        "results/segment/batch-{number}.tsv",
    log:
        "results/logs/segment/batch-{number}.log",
    benchmark:
        "results/benchmarks/segment_ahead/{number}.tsv"
    threads: 8
    retries: RETRIES
    resources:
        mem_mb=more_each_time(12000),
    conda:
        "../envs/totalsegmentator.yaml"
    params:
        options=SEGMENT_OPTIONS,
        version=RESULT_VERSION["segment"],
    shell:
        "python -m pipeline segment {input:q} {params.options:q} --ahead {output:q} --out results/segment 2> >(tee {log:q} >&2)"


rule segment:
    input:
        record="results/fetch/{case}/case.json",
        table=ancient(batch_table),
    output:
        "results/segment/{case}/case.json",
    log:
        "results/logs/segment/{case}.log",
    benchmark:
        "results/benchmarks/segment/{case}.tsv"
    threads: 1
    retries: RETRIES
    resources:
        mem_mb=more_each_time(3000),
    conda:
        "../envs/totalsegmentator.yaml"
    params:
        options=SEGMENT_OPTIONS,
        version=RESULT_VERSION["segment"],
    shell:
        "python -m pipeline segment {input.record:q} {params.options:q} --out results/segment/{wildcards.case:q} > {log:q} 2>&1"
