"""What a pipeline says of its tickets beyond accuracy, where its section asks for it: `speed` and `relations`.

REQUIRED INPUTS: tickets and trained networks of the other rule files
OUTPUTS: results/tables/<pipeline>_{speed,relations}.csv, and a figure beside each measurement

Times hold for one machine at one moment: a measurement takes all cores of the run, so that no job of it runs beside it.
"""

from winnow.pipelines import beyond

for PIPELINE, SECTION in CONFIG.sections().items():
    for KIND in beyond.asked_for(SECTION):
        MODULE = beyond.module(PIPELINE)
        FILES = getattr(MODULE, KIND.upper())
        WHOLE = asked(
            "table",
            SECTION,
            lambda section, name=PIPELINE, kind=KIND: beyond.table(name, section, kind),
            stage=f"{KIND}_table",
            env="tables",
        )
        DRAWN = asked(
            "plots",
            SECTION,
            beyond.drawn,
            stage={"speed": "speed_plots", "relations": "compare_tickets_plots"}[KIND],
            env="tables",
        )

        rule:
            name:
                f"{PIPELINE}_{KIND}_table"
            input:
                [row.file for row in MODULE.rows(SECTION, KIND)],
            output:
                table=report(
                    f"results/tables/{PIPELINE}_{KIND}.csv",
                    caption=f"../report/{KIND}_table.rst",
                    category=pipelines.grid(PIPELINE).TITLE,
                ),
                metrics=f"results/tables/{PIPELINE}_{KIND}.json",
            log:
                f"results/tables/logs/{PIPELINE}_{KIND}.log",
            localrule: True
            conda:
                TABLES
            resources:
                **WHOLE.resources,
            params:
                **WHOLE.params,
            message:
                "writing {output.table}"
            shell:
                "python -m winnow.stages.{params.stage} --config {params.config:q} --out {output.table:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"

        rule:
            name:
                f"{PIPELINE}_{KIND}_plots"
            input:
                f"{FILES}.json",
            output:
                svg=report(
                    f"{FILES}.svg", caption=f"../report/{KIND}_figure.rst", category=pipelines.grid(PIPELINE).TITLE
                ),
                png=f"{FILES}.png",
                metrics=f"{FILES}.figure.json",
            log:
                f"{FILES}.figure.log",
            localrule: True
            conda:
                TABLES
            resources:
                **DRAWN.resources,
            params:
                **DRAWN.params,
            message:
                "drawing {output.svg}"
            shell:
                "python -m winnow.stages.{params.stage} --config {params.config:q} --measured {input:q} --svg {output.svg:q} --png {output.png:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"

        if KIND == "speed":
            SPEED = asked(
                "speed",
                SECTION,
                MODULE.speed,
                *MODULE.SPEED_WILDCARDS,
                threads=ADAPTER.all_cores(SECTION.speed.threads),
            )

            rule:
                name:
                    f"{PIPELINE}_speed"
                input:
                    unpack(
                        signed(lambda wildcards, module=MODULE, section=SECTION: module.measured(section, wildcards))
                    ),
                output:
                    table=f"{FILES}.csv",
                    metrics=f"{FILES}.json",
                log:
                    f"{FILES}.log",
                benchmark:
                    f"{FILES}.tsv"
                conda:
                    VISION
                threads: SPEED.threads
                resources:
                    **SPEED.resources,
                params:
                    **SPEED.params,
                message:
                    "measuring {input.mask}"
                shell:
                    "python -m winnow.stages.speed --config {params.config:q} --weights {input.weights:q} --mask {input.mask:q} --table {output.table:q} --metrics {output.metrics:q} {params.run} > {log:q} 2>&1"

        else:
            RELATE = asked(
                "compare_tickets", SECTION, MODULE.relations, *MODULE.RELATIONS_WILDCARDS, gpus=1, loads=True
            )

            rule:
                name:
                    f"{PIPELINE}_relations"
                input:
                    unpack(
                        signed(lambda wildcards, module=MODULE, section=SECTION: module.compared(section, wildcards))
                    ),
                output:
                    f"{FILES}.json",
                log:
                    f"{FILES}.log",
                benchmark:
                    f"{FILES}.tsv"
                conda:
                    VISION
                threads: RELATE.threads
                resources:
                    **RELATE.resources,
                params:
                    **RELATE.params,
                message:
                    "comparing {input.weights} and {input.other}"
                shell:
                    "python -m winnow.stages.compare_tickets --config {params.config:q} --weights {input.weights:q} --mask {input.mask:q} --other-weights {input.other:q} --other-mask {input.other_mask:q} --init {input.init:q} --metrics {output:q} {params.run} 2> {log:q}"


if CONFIG.rare_gems and CONFIG.rare_gems.relations and "order" in CONFIG.rare_gems.relations.pairs:
    from winnow.pipelines.rare_gems import beyond as gems_beyond

    REORDERED = asked(
        "gem_reordered",
        RG,
        gems_beyond.reordered,
        "experiment",
        "branch",
        "seed",
        stage="train",
        gpus=CONFIG.gpus,
        loads=True,
    )

    use rule train as gem_reordered with:
        input:
            unpack(signed(lambda wildcards: gems_beyond.again(RG, wildcards))),
        output:
            weights=f"{OF_BRANCH}/reordered/{{target}}.safetensors",
            metrics=f"{OF_BRANCH}/reordered/{{target}}.json",
        log:
            f"{RG_LOG}/reordered-{{target}}.log",
        benchmark:
            f"{RG_BENCHMARK}/reordered-{{target}}.tsv"
        threads: REORDERED.threads
        resources:
            **REORDERED.resources,
        params:
            **REORDERED.params,
        message:
            "another order of the data: {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
