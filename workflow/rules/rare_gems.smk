"""Rare gems (NeurIPS 2022): search at initialisation, fine-tune, check, compare with baselines and IMP.

REQUIRED INPUTS: none but the datasets of the configuration; pre-trained weights where a branch names some
OUTPUTS: results/tables/rare_gems.csv, results/figures/rare_gems/<experiment>.{svg,pdf,png}

An iterative search writes the order in which weights went, so one search serves all its sparsities; IMP rounds are a chain.
"""

from winnow.pipelines.rare_gems import grid as rg
from winnow.pipelines.rare_gems import inputs as gems

RG = CONFIG.rare_gems
OF_BRANCH, OF_EXPERIMENT = rg.FOLDER, "results/rare_gems/{experiment}"
RG_LOG, RG_BENCHMARK = f"{OF_BRANCH}/logs", f"{OF_BRANCH}/benchmarks"
CELL = ("experiment", "branch", "target", "seed")
INIT = asked("gem_init", RG, rg.init, "experiment", "init", "seed")
GEM_IMPORT = asked("gem_import", RG, rg.imported, "experiment", "branch", stage="import_weights")
GEM_SEARCH = asked(
    "gem_search", RG, rg.search, "experiment", "branch", "target", "kind", "seed", gpus=CONFIG.gpus, loads=True
)
GEM_TICKET = asked("gem_ticket", RG, rg.draw, "target")
GEM_PRUNE = asked("prune", RG, rg.prune, *CELL, "method")
GEM_SCORE = asked("score", RG, rg.prune, *CELL, stage="prune", gpus=1, loads=True)
FINETUNE = asked(
    "gem_finetune", RG, rg.finetune, "experiment", "branch", "seed", stage="train", gpus=CONFIG.gpus, loads=True
)
SANITY = asked("gem_sanity", RG, rg.sanity, *CELL, gpus=1, loads=True)
IMP_ROUND = asked(
    "weight_training",
    RG,
    rg.imp_train,
    "experiment",
    "branch",
    "round",
    "seed",
    stage="train",
    gpus=CONFIG.gpus,
    loads=True,
)


rule gem_init:
    input:
        signed(lambda wildcards: gems.init_source(RG, wildcards)),
    output:
        f"{OF_EXPERIMENT}/init/{{init}}/s{{seed}}.safetensors",
    log:
        f"{OF_EXPERIMENT}/init/{{init}}/logs/s{{seed}}.log",
    benchmark:
        f"{OF_EXPERIMENT}/init/{{init}}/benchmarks/s{{seed}}.tsv"
    conda:
        VISION
    resources:
        **INIT.resources,
    params:
        **INIT.params,
    message:
        "initial weights for {wildcards.experiment}: {wildcards.init}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.gem_init --config {params.config:q} --weights {input:q} --out {output:q} {params.run} 2> {log:q}"


use rule bring_weights as gem_import with:
    input:
        signed(lambda wildcards: gems.imported_file(RG, wildcards)),
    output:
        weights=f"{OF_EXPERIMENT}/imported/{{branch}}.safetensors",
        metrics=f"{OF_EXPERIMENT}/imported/{{branch}}.json",
    log:
        f"{OF_EXPERIMENT}/imported/logs/{{branch}}.log",
    benchmark:
        f"{OF_EXPERIMENT}/imported/benchmarks/{{branch}}.tsv"
    resources:
        **GEM_IMPORT.resources,
    params:
        **GEM_IMPORT.params,
    message:
        "importing the weights of {wildcards.experiment}/{wildcards.branch}"


rule gem_search:
    input:
        signed(lambda wildcards: gems.init(RG, wildcards)),
    output:
        ticket=f"{OF_BRANCH}/{{kind}}/{{target}}.mask.safetensors",
        order=f"{OF_BRANCH}/{{kind}}/{{target}}.order.safetensors",
        levels=directory(f"{OF_BRANCH}/{{kind}}/{{target}}.levels"),
        metrics=f"{OF_BRANCH}/{{kind}}/{{target}}.json",
    log:
        f"{RG_LOG}/{{kind}}-{{target}}.log",
    benchmark:
        f"{RG_BENCHMARK}/{{kind}}-{{target}}.tsv"
    conda:
        VISION
    threads: GEM_SEARCH.threads
    resources:
        **GEM_SEARCH.resources,
    params:
        **GEM_SEARCH.params,
    message:
        "{wildcards.kind}: {wildcards.experiment}/{wildcards.branch} down to {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.gem_search --config {params.config:q} --init {input:q} --out {output.ticket:q} --order {output.order:q} --levels {output.levels:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


rule gem_ticket:
    input:
        signed(lambda wildcards: gems.order(RG, wildcards)),
    output:
        f"{OF_BRANCH}/drawn/{{target}}.mask.safetensors",
    log:
        f"{RG_LOG}/drawn-{{target}}.log",
    localrule: True
    conda:
        VISION
    resources:
        **GEM_TICKET.resources,
    params:
        **GEM_TICKET.params,
    message:
        "drawing {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.gem_ticket --config {params.config:q} --order {input:q} --out {output:q} {params.run} 2> {log:q}"


localrules:
    gem_prune,


use rule prune as gem_prune with:
    input:
        unpack(signed(lambda wildcards: gems.pruned(RG, wildcards))),
    output:
        f"{OF_BRANCH}/{{method}}/{{target}}.mask.safetensors",
    log:
        f"{RG_LOG}/{{method}}-{{target}}.log",
    wildcard_constraints:
        method=rg.LIGHT_METHODS,
        target=r"round[1-9]\d*|[\d.]+",
    resources:
        **GEM_PRUNE.resources,
    params:
        **GEM_PRUNE.params,
    message:
        "pruning: {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"


use rule score as gem_score with:
    input:
        unpack(signed(lambda wildcards: gems.pruned(RG, wildcards))),
    output:
        f"{OF_BRANCH}/{{method}}/{{target}}.mask.safetensors",
    log:
        f"{RG_LOG}/{{method}}-{{target}}.log",
    benchmark:
        f"{RG_BENCHMARK}/{{method}}-{{target}}.tsv"
    wildcard_constraints:
        method=rg.SCORED_METHODS,
    threads: GEM_SCORE.threads
    resources:
        **GEM_SCORE.resources,
    params:
        **GEM_SCORE.params,
    message:
        "pruning by scores: {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"


use rule train as gem_finetune with:
    input:
        unpack(signed(lambda wildcards: gems.ticketed(RG, wildcards))),
    output:
        weights=f"{OF_BRANCH}/tuned/{{target}}.safetensors",
        metrics=f"{OF_BRANCH}/tuned/{{target}}.json",
    log:
        f"{RG_LOG}/tuned-{{target}}.log",
    benchmark:
        f"{RG_BENCHMARK}/tuned-{{target}}.tsv"
    threads: FINETUNE.threads
    resources:
        **FINETUNE.resources,
    params:
        **FINETUNE.params,
    message:
        "fine-tuning {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"


rule gem_sanity:
    input:
        unpack(signed(lambda wildcards: gems.checked(RG, wildcards))),
    output:
        f"{OF_BRANCH}/sanity/{{target}}.json",
    log:
        f"{RG_LOG}/sanity-{{target}}.log",
    benchmark:
        f"{RG_BENCHMARK}/sanity-{{target}}.tsv"
    conda:
        VISION
    threads: SANITY.threads
    resources:
        **SANITY.resources,
    params:
        **SANITY.params,
    message:
        "sanity checks of {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.gem_sanity --config {params.config:q} --init {input.init:q} --mask {input.mask:q} --inverted {input.inverted:q} --metrics {output:q} {params.run} 2> {log:q}"


use rule train as gem_imp_train with:
    input:
        init=signed(lambda wildcards: gems.imp_start(RG, wildcards, wildcards.chain, int(wildcards.round))),
        mask=f"{OF_BRANCH}/{{chain}}/round{{round}}.mask.safetensors",
    output:
        weights=f"{OF_BRANCH}/{{chain}}/round{{round}}.safetensors",
        metrics=f"{OF_BRANCH}/{{chain}}/round{{round}}.json",
    log:
        f"{RG_LOG}/{{chain}}-{{round}}.log",
    benchmark:
        f"{RG_BENCHMARK}/{{chain}}-{{round}}.tsv"
    wildcard_constraints:
        chain=f"imp|{rg.INVERTED}",
        round=r"[1-9]\d*",
    threads: IMP_ROUND.threads
    resources:
        **IMP_ROUND.resources,
    params:
        **IMP_ROUND.params,
    message:
        "{wildcards.chain} round {wildcards.round}: {wildcards.experiment}/{wildcards.branch}, seed {wildcards.seed}"


rule weight_training:
    input:
        signed(lambda wildcards: gems.init(RG, wildcards)),
    output:
        weights=f"{OF_BRANCH}/imp/round{{round}}.safetensors",
        rewind=f"{OF_BRANCH}/imp/round{{round}}-rewind.safetensors",
        metrics=f"{OF_BRANCH}/imp/round{{round}}.json",
    log:
        f"{RG_LOG}/imp-{{round}}.log",
    benchmark:
        f"{RG_BENCHMARK}/imp-{{round}}.tsv"
    wildcard_constraints:
        round="0",
    conda:
        VISION
    threads: IMP_ROUND.threads
    resources:
        **IMP_ROUND.resources,
    params:
        **IMP_ROUND.params,
    message:
        "dense training: {wildcards.experiment}/{wildcards.branch}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.train --config {params.config:q} --init {input:q} --out {output.weights:q} --rewind {output.rewind:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"
