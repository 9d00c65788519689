"""Rare gems (NeurIPS 2022): search at initialisation, fine-tune, check, compare with baselines and IMP.

REQUIRED INPUTS: none but the datasets of the configuration; pre-trained weights where a branch names some
OUTPUTS: results/tables/rare_gems.csv, results/figures/rare_gems/<experiment>.{svg,png}

An iterative search writes the order in which weights went, so one search serves all its sparsities; IMP rounds are a chain.
"""

from winnow.grid import rare_gems as gem_grid
from winnow.grid import rare_gems_inputs as gem_inputs

RG = CONFIG.rare_gems
GEMS = gem_inputs.FOLDER


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
        mem_mb=memory("gem_init"),
        runtime=runtime("gem_init"),
    params:
        config=part_of(RG, gem_grid.init_config, "experiment", "init", "seed"),
        stamp=stamp("gem_init"),
        run=untracked,
    message:
        "initial weights for {wildcards.experiment}: {wildcards.init}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.gem_init --config {params.config:q} --weights {input:q} --out {output:q} {params.run} 2> {log:q}"


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
        mem_mb=memory("gem_import"),
        runtime=runtime("gem_import"),
    params:
        config=lambda w: canonical_json(gem_grid.import_config(RG, w.experiment, w.branch)),
        stamp=stamp("import_weights"),
        run=untracked,
    message:
        "importing the weights of {wildcards.experiment}/{wildcards.branch}"
    shell:
        "python -m winnow.stages.import_weights --config {params.config:q} --file {input:q} --out {output.weights:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


gem_search_config = lambda w: canonical_json(gem_grid.search_config(RG, w.experiment, w.branch, w.target, False, int(w.seed)))


rule gem_search:
    input:
        lambda w: gem_inputs.init(RG, w),
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
        **GPU_MODEL,
        nodes=1,
        gpu=CONFIG.gpus,
        mem_mb=memory("gem_search", CONFIG.workers),
        runtime=runtime("gem_search", gem_search_config),
    params:
        config=gem_search_config,
        stamp=stamp("gem_search"),
        run=untracked,
    message:
        "searching: {wildcards.experiment}/{wildcards.branch} down to {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.gem_search --config {params.config:q} --init {input:q} --out {output.ticket:q} --order {output.order:q} --levels {output.levels:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


gem_search_inverted_config = lambda w: canonical_json(
    gem_grid.search_config(RG, w.experiment, w.branch, w.target, True, int(w.seed))
)


rule gem_search_inverted:
    input:
        lambda w: gem_inputs.init(RG, w),
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
        **GPU_MODEL,
        nodes=1,
        gpu=CONFIG.gpus,
        mem_mb=memory("gem_search_inverted", CONFIG.workers),
        runtime=runtime("gem_search_inverted", gem_search_inverted_config),
    params:
        config=gem_search_inverted_config,
        stamp=stamp("gem_search"),
        run=untracked,
    message:
        "inverted search: {wildcards.experiment}/{wildcards.branch} down to {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.gem_search --config {params.config:q} --init {input:q} --out {output.ticket:q} --order {output.order:q} --levels {output.levels:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


rule gem_ticket:
    input:
        lambda w: gem_inputs.order(RG, w),
    output:
        f"{GEMS}/drawn/{{target}}.mask.safetensors",
    log:
        f"{GEMS}/logs/drawn-{{target}}.log",
    benchmark:
        f"{GEMS}/benchmarks/drawn-{{target}}.tsv"
    localrule: True
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=memory("gem_ticket"),
        runtime=runtime("gem_ticket"),
    params:
        config=part_of(RG, gem_grid.ticket_config, "experiment", "branch", "target", "seed"),
        stamp=stamp("gem_ticket"),
        run=untracked,
    message:
        "drawing {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.gem_ticket --config {params.config:q} --order {input:q} --out {output:q} {params.run} 2> {log:q}"


gem_finetune_config = part_of(RG, gem_grid.finetune_config, "experiment", "branch", "seed")


rule gem_finetune:
    input:
        unpack(lambda w: gem_inputs.ticketed(RG, w)),
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
        **GPU_MODEL,
        nodes=1,
        gpu=CONFIG.gpus,
        mem_mb=memory("gem_finetune", CONFIG.workers),
        runtime=runtime("gem_finetune", gem_finetune_config),
    params:
        config=gem_finetune_config,
        stamp=stamp("gem_finetune"),
        run=untracked,
    message:
        "fine-tuning {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.gem_finetune --config {params.config:q} --init {input.init:q} --mask {input.mask:q} --out {output.weights:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


gem_sanity_config = part_of(RG, gem_grid.sanity_config, "experiment", "branch", "target", "seed")


rule gem_sanity:
    input:
        unpack(lambda w: gem_inputs.checked(RG, w)),
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
        **GPU_MODEL,
        nodes=1,
        gpu=1,
        mem_mb=memory("gem_sanity", CONFIG.workers),
        runtime=runtime("gem_sanity", gem_sanity_config),
    params:
        config=gem_sanity_config,
        stamp=stamp("gem_sanity"),
        run=untracked,
    message:
        "sanity checks of {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.gem_sanity --config {params.config:q} --init {input.init:q} --mask {input.mask:q} --inverted {input.inverted:q} --metrics {output:q} {params.run} 2> {log:q}"
