"""Tables and figures of the configured pipelines, and what Snakemake's own report shows of them.

REQUIRED INPUTS: the evaluations of the other rule files
OUTPUTS: results/tables/<pipeline>.csv, results/figures/<pipeline>/<figure>.{svg,pdf,png}
"""

for PIPELINE, SECTION in CONFIG.sections().items():
    GRID, FIGURE = pipelines.grid(PIPELINE), f"results/figures/{PIPELINE}"
    TABLE = asked("table", SECTION, GRID.table, stage=f"{PIPELINE}_table", env="tables")
    PLOTS = asked("plots", SECTION, GRID.plot, *GRID.FIGURE_WILDCARDS, stage=f"{PIPELINE}_plots", env="tables")

    rule:
        name:
            f"{PIPELINE}_table"
        input:
            GRID.table_inputs(SECTION),
        output:
            table=report(
                f"results/tables/{PIPELINE}.csv",
                caption=f"../report/{PIPELINE}_table.rst",
                category=GRID.TITLE,
            ),
            metrics=f"results/tables/{PIPELINE}.json",
        log:
            f"results/tables/logs/{PIPELINE}.log",
        localrule: True
        conda:
            TABLES
        resources:
            **TABLE.resources,
        params:
            **TABLE.params,
        message:
            "writing {output.table}"
        shell:
            "python -m winnow.stages.{params.stage} --config {params.config:q} --out {output.table:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"

    rule:
        name:
            f"{PIPELINE}_plots"
        input:
            f"results/tables/{PIPELINE}.csv",
        output:
            svg=report(
                f"{FIGURE}/{GRID.FIGURE}.svg",
                caption=f"../report/{PIPELINE}_figure.rst",
                category=GRID.TITLE,
                labels={name: f"{{{name}}}" for name in GRID.FIGURE_WILDCARDS},
            ),
            pdf=f"{FIGURE}/{GRID.FIGURE}.pdf",
            png=f"{FIGURE}/{GRID.FIGURE}.png",
            metrics=f"{FIGURE}/{GRID.FIGURE}.json",
        log:
            f"{FIGURE}/logs/{GRID.FIGURE}.log",
        localrule: True
        conda:
            TABLES
        resources:
            **PLOTS.resources,
        params:
            **PLOTS.params,
        message:
            "drawing {output.svg}"
        shell:
            "python -m winnow.stages.{params.stage} --config {params.config:q} --table {input:q} --svg {output.svg:q} --pdf {output.pdf:q} --png {output.png:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"
