"""Tables and figures of the three pipelines, and what the report shows of them.

REQUIRED INPUTS: the evaluations of the other rule files
OUTPUTS: results/tables/<pipeline>.csv, results/figures/<pipeline>/*.{svg,png}
"""


rule double_win_table:
    input:
        grid.table_inputs(DW),
    output:
        table=report(
            "results/tables/double_win.csv",
            caption="../report/double_win_table.rst",
            category="Double-win tickets",
        ),
        metrics="results/tables/double_win.json",
    log:
        "results/tables/logs/double_win.log",
    benchmark:
        "results/tables/benchmarks/double_win.tsv"
    localrule: True
    conda:
        f"{ENVS}/tables.yaml"
    resources:
        mem_mb=memory("double_win_table"),
        runtime=runtime("double_win_table"),
    params:
        config=part_of(DW, grid.table_config),
        stamp=stamp("double_win_table", "tables"),
        run=untracked,
    message:
        "writing the double-win table"
    shell:
        "python -m winnow.stages.double_win_table --config {params.config:q} --out {output.table:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


rule double_win_plots:
    input:
        "results/tables/double_win.csv",
    output:
        svg=report(
            "results/figures/double_win/{dataset}-{percent}.svg",
            caption="../report/double_win_figure.rst",
            category="Double-win tickets",
            labels={"task": "{dataset}", "training data": "{percent} %"},
        ),
        png="results/figures/double_win/{dataset}-{percent}.png",
        metrics="results/figures/double_win/{dataset}-{percent}.json",
    log:
        "results/figures/double_win/logs/{dataset}-{percent}.log",
    benchmark:
        "results/figures/double_win/benchmarks/{dataset}-{percent}.tsv"
    localrule: True
    conda:
        f"{ENVS}/tables.yaml"
    resources:
        mem_mb=memory("double_win_plots"),
        runtime=runtime("double_win_plots"),
    params:
        config=part_of(DW, grid.plot_config, "dataset", "percent"),
        stamp=stamp("double_win_plots", "tables"),
        run=untracked,
    message:
        "drawing {wildcards.dataset}, {wildcards.percent} %"
    shell:
        "python -m winnow.stages.double_win_plots --config {params.config:q} --table {input:q} --svg {output.svg:q} --png {output.png:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


rule robust_bert_table:
    input:
        figures=[run.figures for run in rb_grid.grid_of(RB).runs()] if RB else [],
        tickets=(sorted({run.mask for run in rb_grid.grid_of(RB).runs() if run.mask}) if RB else []),
    output:
        table=report(
            "results/tables/robust_bert.csv",
            caption="../report/robust_bert_table.rst",
            category="Robust BERT tickets",
        ),
        metrics="results/tables/robust_bert.json",
    log:
        "results/tables/logs/robust_bert.log",
    benchmark:
        "results/tables/benchmarks/robust_bert.tsv"
    localrule: True
    conda:
        f"{ENVS}/tables.yaml"
    resources:
        mem_mb=memory("robust_bert_table"),
        runtime=runtime("robust_bert_table"),
    params:
        config=part_of(RB, rb_grid.table_config),
        stamp=stamp("robust_bert_table", "tables"),
        run=untracked,
    message:
        "writing the robust-ticket table"
    shell:
        "python -m winnow.stages.robust_bert_table --config {params.config:q} --out {output.table:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


rule robust_bert_plots:
    input:
        "results/tables/robust_bert.csv",
    output:
        svg=report(
            "results/figures/robust_bert/{task}.svg",
            caption="../report/robust_bert_figure.rst",
            category="Robust BERT tickets",
            labels={"task": "{task}"},
        ),
        png="results/figures/robust_bert/{task}.png",
        metrics="results/figures/robust_bert/{task}.json",
    log:
        "results/figures/robust_bert/logs/{task}.log",
    benchmark:
        "results/figures/robust_bert/benchmarks/{task}.tsv"
    localrule: True
    conda:
        f"{ENVS}/tables.yaml"
    resources:
        mem_mb=memory("robust_bert_plots"),
        runtime=runtime("robust_bert_plots"),
    params:
        config=lambda wildcards: canonical_json({"task": wildcards.task}),
        stamp=stamp("robust_bert_plots", "tables"),
        run=untracked,
    message:
        "drawing {wildcards.task}"
    shell:
        "python -m winnow.stages.robust_bert_plots --config {params.config:q} --table {input:q} --svg {output.svg:q} --png {output.png:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


rule rare_gems_table:
    input:
        metrics=sorted({c.metrics for c in gem_grid.grid_of(RG).cells()}) if RG else [],
        checks=(sorted({c.checks for c in gem_grid.grid_of(RG).cells() if c.checks}) if RG else []),
    output:
        table=report(
            "results/tables/rare_gems.csv",
            caption="../report/rare_gems_table.rst",
            category="Rare gems",
        ),
        metrics="results/tables/rare_gems.json",
    log:
        "results/tables/logs/rare_gems.log",
    benchmark:
        "results/tables/benchmarks/rare_gems.tsv"
    localrule: True
    conda:
        f"{ENVS}/tables.yaml"
    resources:
        mem_mb=memory("rare_gems_table"),
        runtime=runtime("rare_gems_table"),
    params:
        config=lambda wildcards: canonical_json(gem_grid.table_config(RG)),
        stamp=stamp("rare_gems_table", "tables"),
        run=untracked,
    message:
        "writing the rare-gems table"
    shell:
        "python -m winnow.stages.rare_gems_table --config {params.config:q} --out {output.table:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


rule rare_gems_plots:
    input:
        "results/tables/rare_gems.csv",
    output:
        svg=report(
            "results/figures/rare_gems/{experiment}.svg",
            caption="../report/rare_gems_figure.rst",
            category="Rare gems",
            labels={"experiment": "{experiment}"},
        ),
        png="results/figures/rare_gems/{experiment}.png",
        metrics="results/figures/rare_gems/{experiment}.json",
    log:
        "results/figures/rare_gems/logs/{experiment}.log",
    benchmark:
        "results/figures/rare_gems/benchmarks/{experiment}.tsv"
    localrule: True
    conda:
        f"{ENVS}/tables.yaml"
    resources:
        mem_mb=memory("rare_gems_plots"),
        runtime=runtime("rare_gems_plots"),
    params:
        config=lambda w: canonical_json({"experiment": w.experiment}),
        stamp=stamp("rare_gems_plots", "tables"),
        run=untracked,
    message:
        "drawing {wildcards.experiment}"
    shell:
        "python -m winnow.stages.rare_gems_plots --config {params.config:q} --table {input:q} --svg {output.svg:q} --png {output.png:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"
