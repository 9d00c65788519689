"""Rare gems (NeurIPS 2022): search at initialisation, fine-tune, check, compare with baselines and IMP.

REQUIRED INPUTS: none but the datasets of the configuration; pre-trained weights where a branch names some
OUTPUTS: results/tables/rare_gems.csv, results/figures/rare_gems/<experiment>.{svg,png}

An iterative search writes the order in which weights went, so one search serves all its sparsities; IMP rounds are a chain.
"""

from winnow.grid import rare_gems as gem_grid

RG = CONFIG.rare_gems
GEMS = "results/rare_gems/{experiment}/{branch}/s{seed}"


def rg_config(build, *names):
    """A params function: `build(section, *wildcards, seed)` as canonical JSON."""
    return lambda wildcards: canonical_json(build(RG, *(wildcards[n] for n in names), int(wildcards.seed)))


def rg_init(wildcards):
    """The initial weights of a branch."""
    return gem_grid.init_path(RG, wildcards.experiment, wildcards.branch, wildcards.seed)


def rg_ticketed(wildcards):
    """Initial weights and ticket of one target."""
    where = (RG, wildcards.experiment, wildcards.branch, wildcards.seed)
    return {
        "init": gem_grid.init_path(*where),
        "mask": gem_grid.ticket_path(*where, wildcards.target),
    }


def rg_checked(wildcards):
    """The same, and the inverted search where there is one."""
    inverted = gem_grid.inverted_path(RG, wildcards.experiment, wildcards.branch, wildcards.seed, wildcards.target)
    return {**rg_ticketed(wildcards), "inverted": inverted or []}


def rg_order(wildcards):
    """The prune order that a target is drawn from."""
    e, b = gem_grid.find(RG, wildcards.experiment, wildcards.branch)
    return f"{GEMS}/search/{gem_grid.search_target(e, b, wildcards.target)}.order.safetensors".format(**wildcards)


def rg_last_round(wildcards):
    """What IMP round k starts from: what round k-1 trained, its ticket (k > 1) and the weights to go back to."""
    folder, last = f"{GEMS}/imp".format(**wildcards), int(wildcards.round) - 1
    rewind = gem_grid.find(RG, wildcards.experiment, wildcards.branch)[1].imp.rewind
    back = {
        "warm": f"{folder}/round0-rewind.safetensors",
        "cold": rg_init(wildcards),
        "renda": [],
    }[rewind]
    mask = f"{folder}/round{last}.mask.safetensors" if last else []
    return {
        "trained": f"{folder}/round{last}.safetensors",
        "mask": mask,
        "rewind": back,
    }


wildcard_constraints:
    experiment=r"[\w.]+",
    branch=r"[\w.]+",
    target=r"[\d.]+",
    init=r"[\w.-]+",


rule gem_init:
    input:
        lambda w: gem_grid.init_source(RG, w.experiment, w.init, w.seed) or [],
    output:
        "results/rare_gems/{experiment}/init/{init}/s{seed}.safetensors",
    log:
        "results/rare_gems/{experiment}/init/{init}/logs/s{seed}.log",
    benchmark:
        "results/rare_gems/{experiment}/init/{init}/benchmarks/s{seed}.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=more(2000),
        runtime=more(10),
    params:
        config=rg_config(gem_grid.init_config, "experiment", "init"),
        stamp=stamp("gem_init"),
        run=untracked,
    message:
        "initial weights for {wildcards.experiment}: {wildcards.init}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.gem_init --config {params.config:q} --weights {input} --out {output} {params.run} 2> {log}"


rule gem_import:
    input:
        lambda w: gem_grid.find(RG, w.experiment, w.branch)[1].imported.file or [],
    output:
        weights="results/rare_gems/{experiment}/imported/{branch}.safetensors",
        metrics="results/rare_gems/{experiment}/imported/{branch}.json",
    log:
        "results/rare_gems/{experiment}/imported/logs/{branch}.log",
    benchmark:
        "results/rare_gems/{experiment}/imported/benchmarks/{branch}.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=more(4000),
        runtime=more(15),
    params:
        config=lambda w: canonical_json(gem_grid.import_config(RG, w.experiment, w.branch)),
        stamp=stamp("import_weights"),
        run=untracked,
    message:
        "importing the weights of {wildcards.experiment}/{wildcards.branch}"
    shell:
        "python -m winnow.stages.import_weights --config {params.config:q} --file {input} --out {output.weights} --metrics {output.metrics} {params.run} 2> {log}"


rule gem_search:
    input:
        rg_init,
    output:
        ticket=f"{GEMS}/search/{{target}}.mask.safetensors",
        order=f"{GEMS}/search/{{target}}.order.safetensors",
        levels=directory(f"{GEMS}/search/{{target}}.levels"),
        metrics=f"{GEMS}/search/{{target}}.json",
    log:
        f"{GEMS}/logs/search-{{target}}.log",
    benchmark:
        f"{GEMS}/benchmarks/search-{{target}}.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    threads: RG.compute.threads if RG else 1
    resources:
        gpu=1,
        mem_mb=more(4000),
        runtime=more(240),
    params:
        config=lambda w: canonical_json(gem_grid.search_config(RG, w.experiment, w.branch, w.target, False, int(w.seed))),
        stamp=stamp("gem_search"),
        run=untracked,
    message:
        "searching: {wildcards.experiment}/{wildcards.branch} down to {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.gem_search --config {params.config:q} --init {input} --out {output.ticket} --order {output.order} --levels {output.levels} --metrics {output.metrics} {params.run} 2> {log}"


rule gem_search_inverted:
    input:
        rg_init,
    output:
        ticket=f"{GEMS}/inverted/{{target}}.mask.safetensors",
        order=f"{GEMS}/inverted/{{target}}.order.safetensors",
        levels=directory(f"{GEMS}/inverted/{{target}}.levels"),
        metrics=f"{GEMS}/inverted/{{target}}.json",
    log:
        f"{GEMS}/logs/inverted-{{target}}.log",
    benchmark:
        f"{GEMS}/benchmarks/inverted-{{target}}.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    threads: RG.compute.threads if RG else 1
    resources:
        gpu=1,
        mem_mb=more(4000),
        runtime=more(240),
    params:
        config=lambda w: canonical_json(gem_grid.search_config(RG, w.experiment, w.branch, w.target, True, int(w.seed))),
        stamp=stamp("gem_search"),
        run=untracked,
    message:
        "inverted search: {wildcards.experiment}/{wildcards.branch} down to {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.gem_search --config {params.config:q} --init {input} --out {output.ticket} --order {output.order} --levels {output.levels} --metrics {output.metrics} {params.run} 2> {log}"


rule gem_ticket:
    input:
        rg_order,
    output:
        f"{GEMS}/drawn/{{target}}.mask.safetensors",
    log:
        f"{GEMS}/logs/drawn-{{target}}.log",
    benchmark:
        f"{GEMS}/benchmarks/drawn-{{target}}.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=more(2000),
        runtime=more(10),
    params:
        config=rg_config(gem_grid.ticket_config, "experiment", "branch", "target"),
        stamp=stamp("gem_ticket"),
        run=untracked,
    message:
        "drawing {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.gem_ticket --config {params.config:q} --order {input} --out {output} {params.run} 2> {log}"


rule gem_smart_ratio:
    input:
        rg_init,
    output:
        f"{GEMS}/smart_ratio/{{target}}.mask.safetensors",
    log:
        f"{GEMS}/logs/smart_ratio-{{target}}.log",
    benchmark:
        f"{GEMS}/benchmarks/smart_ratio-{{target}}.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=more(2000),
        runtime=more(10),
    params:
        config=rg_config(gem_grid.ticket_config, "experiment", "branch", "target"),
        stamp=stamp("smart_ratio"),
        run=untracked,
    message:
        "smart ratio: {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.smart_ratio --config {params.config:q} --weights {input} --out {output} {params.run} 2> {log}"


rule gem_random:
    input:
        rg_init,
    output:
        f"{GEMS}/random/{{target}}.mask.safetensors",
    log:
        f"{GEMS}/logs/random-{{target}}.log",
    benchmark:
        f"{GEMS}/benchmarks/random-{{target}}.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=more(2000),
        runtime=more(10),
    params:
        config=rg_config(gem_grid.ticket_config, "experiment", "branch", "target"),
        stamp=stamp("random_ticket"),
        run=untracked,
    message:
        "random ticket: {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.random_ticket --config {params.config:q} --weights {input} --out {output} {params.run} 2> {log}"


rule gem_snip:
    input:
        rg_init,
    output:
        f"{GEMS}/snip/{{target}}.mask.safetensors",
    log:
        f"{GEMS}/logs/snip-{{target}}.log",
    benchmark:
        f"{GEMS}/benchmarks/snip-{{target}}.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    threads: RG.compute.threads if RG else 1
    resources:
        gpu=1,
        mem_mb=more(4000),
        runtime=more(10),
    params:
        config=rg_config(gem_grid.ticket_config, "experiment", "branch", "target"),
        stamp=stamp("snip"),
        run=untracked,
    message:
        "snip: {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.snip --config {params.config:q} --weights {input} --out {output} {params.run} 2> {log}"


rule gem_grasp:
    input:
        rg_init,
    output:
        f"{GEMS}/grasp/{{target}}.mask.safetensors",
    log:
        f"{GEMS}/logs/grasp-{{target}}.log",
    benchmark:
        f"{GEMS}/benchmarks/grasp-{{target}}.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    threads: RG.compute.threads if RG else 1
    resources:
        gpu=1,
        mem_mb=more(4000),
        runtime=more(10),
    params:
        config=rg_config(gem_grid.ticket_config, "experiment", "branch", "target"),
        stamp=stamp("grasp"),
        run=untracked,
    message:
        "grasp: {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.grasp --config {params.config:q} --weights {input} --out {output} {params.run} 2> {log}"


rule gem_synflow:
    input:
        rg_init,
    output:
        f"{GEMS}/synflow/{{target}}.mask.safetensors",
    log:
        f"{GEMS}/logs/synflow-{{target}}.log",
    benchmark:
        f"{GEMS}/benchmarks/synflow-{{target}}.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    threads: RG.compute.threads if RG else 1
    resources:
        gpu=1,
        mem_mb=more(4000),
        runtime=more(10),
    params:
        config=rg_config(gem_grid.ticket_config, "experiment", "branch", "target"),
        stamp=stamp("synflow"),
        run=untracked,
    message:
        "synflow: {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.synflow --config {params.config:q} --weights {input} --out {output} {params.run} 2> {log}"


rule gem_finetune:
    input:
        unpack(rg_ticketed),
    output:
        weights=f"{GEMS}/tuned/{{target}}.safetensors",
        metrics=f"{GEMS}/tuned/{{target}}.json",
    log:
        f"{GEMS}/logs/tuned-{{target}}.log",
    benchmark:
        f"{GEMS}/benchmarks/tuned-{{target}}.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    threads: RG.compute.threads if RG else 1
    resources:
        gpu=1,
        mem_mb=more(4000),
        runtime=more(60),
    params:
        config=rg_config(gem_grid.finetune_config, "experiment", "branch"),
        stamp=stamp("gem_finetune"),
        run=untracked,
    message:
        "fine-tuning {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.gem_finetune --config {params.config:q} --init {input.init} --mask {input.mask} --out {output.weights} --metrics {output.metrics} {params.run} 2> {log}"


rule gem_sanity:
    input:
        unpack(rg_checked),
    output:
        f"{GEMS}/sanity/{{target}}.json",
    log:
        f"{GEMS}/logs/sanity-{{target}}.log",
    benchmark:
        f"{GEMS}/benchmarks/sanity-{{target}}.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    threads: RG.compute.threads if RG else 1
    resources:
        gpu=1,
        mem_mb=more(4000),
        runtime=more(180),
    params:
        config=rg_config(gem_grid.sanity_config, "experiment", "branch", "target"),
        stamp=stamp("gem_sanity"),
        run=untracked,
    message:
        "sanity checks of {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.gem_sanity --config {params.config:q} --init {input.init} --mask {input.mask} --inverted {input.inverted} --metrics {output} {params.run} 2> {log}"


rule weight_training:
    input:
        rg_init,
    output:
        weights=f"{GEMS}/imp/round0.safetensors",
        rewind=f"{GEMS}/imp/round0-rewind.safetensors",
        metrics=f"{GEMS}/imp/round0.json",
    log:
        f"{GEMS}/logs/imp-0.log",
    benchmark:
        f"{GEMS}/benchmarks/imp-0.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    threads: RG.compute.threads if RG else 1
    resources:
        gpu=1,
        mem_mb=more(4000),
        runtime=more(60),
    params:
        config=rg_config(gem_grid.dense_config, "experiment", "branch"),
        stamp=stamp("weight_training"),
        run=untracked,
    message:
        "dense training: {wildcards.experiment}/{wildcards.branch}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.weight_training --config {params.config:q} --init {input} --out {output.weights} --rewind {output.rewind} --metrics {output.metrics} {params.run} 2> {log}"


rule imp_rewind:
    input:
        unpack(rg_last_round),
    output:
        ticket=f"{GEMS}/imp/round{{round}}.mask.safetensors",
        weights=f"{GEMS}/imp/round{{round}}.safetensors",
        metrics=f"{GEMS}/imp/round{{round}}.json",
    log:
        f"{GEMS}/logs/imp-{{round}}.log",
    benchmark:
        f"{GEMS}/benchmarks/imp-{{round}}.tsv"
    wildcard_constraints:
        round=r"[1-9]\d*",
    conda:
        f"{ENVS}/vision.yaml"
    threads: RG.compute.threads if RG else 1
    resources:
        gpu=1,
        mem_mb=more(4000),
        runtime=more(60),
    params:
        config=lambda w: canonical_json(gem_grid.imp_config(RG, w.experiment, w.branch, int(w.round), int(w.seed))),
        stamp=stamp("imp_rewind"),
        run=untracked,
    message:
        "IMP round {wildcards.round}: {wildcards.experiment}/{wildcards.branch}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.imp_rewind --config {params.config:q} --trained {input.trained} --mask {input.mask} --rewind {input.rewind} --ticket {output.ticket} --out {output.weights} --metrics {output.metrics} {params.run} 2> {log}"


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
    conda:
        f"{ENVS}/tables.yaml"
    resources:
        mem_mb=more(2000),
        runtime=more(10),
    params:
        config=lambda wildcards: canonical_json(gem_grid.table_config(RG)),
        stamp=stamp("rare_gems_table", "tables"),
        run=untracked,
    message:
        "writing the rare-gems table"
    shell:
        "python -m winnow.stages.rare_gems_table --config {params.config:q} --out {output.table} --metrics {output.metrics} {params.run} 2> {log}"


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
    log:
        "results/figures/rare_gems/logs/{experiment}.log",
    benchmark:
        "results/figures/rare_gems/benchmarks/{experiment}.tsv"
    conda:
        f"{ENVS}/tables.yaml"
    resources:
        mem_mb=more(2000),
        runtime=more(10),
    params:
        config=lambda w: canonical_json({"experiment": w.experiment}),
        stamp=stamp("rare_gems_plots", "tables"),
        run=untracked,
    message:
        "drawing {wildcards.experiment}"
    shell:
        "python -m winnow.stages.rare_gems_plots --config {params.config:q} --table {input} --svg {output.svg} --png {output.png} {params.run} 2> {log}"
