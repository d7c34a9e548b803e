"""INPUT  everything that was made of the splits to report
OUTPUT results/report/index.html        one page, no network needed
       results/report/summary.csv, summary.txt, example.png
"""


def table_options():
    """--table TITLE=run,run for every table of the config."""
    return [part for title, runs in EXPERIMENT["tables"].items() for part in ("--table", f"{title}={','.join(runs)}")]


rule report:
    input:
        shards=report_shards,
        evaluations=expand("results/evaluate/{run}.csv", run=EXPERIMENT["runs"]),
        judgements=judgements,
        reconstructions=expand("results/reconstruct/{run}/index.json", run=EXPERIMENT["runs"]),
        training=expand("results/train/{run}/train.csv", run=EXPERIMENT["runs"]),
        cases="results/cohort/cases.tsv",
        quarantine="results/cohort/quarantine.tsv",
        figures=report_figures,
    output:
        page="results/report/index.html",
        summary="results/report/summary.csv",
        text="results/report/summary.txt",
        picture="results/report/example.png",
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    threads: 1
    resources:
        mem_mb=3000,
    conda:
        "../envs/xr2ct.yaml"
    params:
        tables=table_options(),
        version=LEARNING_VERSION["report"],
    shell:
        "python -m xr2ct report --shards {input.shards:q} --evaluations {input.evaluations:q} {input.judgements:q}"
        " --reconstructions {input.reconstructions:q} --training {input.training:q} --cohort results/cohort"
        " --figure {input.figures:q} {params.tables:q} --picture {output.picture:q} --out {output.page:q}"
        " > {output.text:q} 2> {log:q}"
