"""Double-win tickets (ICML 2022), the source task: pre-train or import, prune round by round, bring tickets in and out.

REQUIRED INPUTS: none but the datasets of the configuration; weights or tickets from outside if it names any
OUTPUTS: dense weights and tickets below results/double_win/<source>/<pretraining>/s<seed>/

IMP rounds are a chain of artifacts (prune 1 -> train 1 -> prune 2 -> ...), so one more round runs one more round.
"""

from winnow.grid import double_win as grid

DW = CONFIG.double_win
CHAIN = grid.CHAIN
IMPORTED = grid.imported_names(DW)


pretrain_config = part_of(DW, grid.dense_config, "pretraining", "seed")


rule pretrain:
    output:
        weights=f"{CHAIN}/dense.safetensors",
        metrics=f"{CHAIN}/dense.json",
    log:
        f"{CHAIN}/logs/pretrain.log",
    benchmark:
        f"{CHAIN}/benchmarks/pretrain.tsv"
    wildcard_constraints:
        pretraining=rf"(?!(?:{IMPORTED})/)[\w.]+",
    conda:
        f"{ENVS}/vision.yaml"
    threads: DW.compute.threads if DW else 1
    resources:
        **GPU_MODEL,
        nodes=1,
        gpu=CONFIG.gpus,
        mem_mb=memory("pretrain", CONFIG.workers),
        runtime=runtime("pretrain", pretrain_config),
    params:
        config=pretrain_config,
        stamp=stamp("pretrain"),
        run=untracked,
    message:
        "pre-training {wildcards.pretraining} on {wildcards.source}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.pretrain --config {params.config:q} --out {output.weights:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


rule import_weights:
    input:
        lambda wildcards: grid.weights_file(DW, wildcards),
    output:
        weights=f"{CHAIN}/dense.safetensors",
        metrics=f"{CHAIN}/dense.json",
    log:
        f"{CHAIN}/logs/import_weights.log",
    benchmark:
        f"{CHAIN}/benchmarks/import_weights.tsv"
    wildcard_constraints:
        pretraining=IMPORTED,
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=memory("import_weights"),
        runtime=runtime("import_weights"),
    params:
        config=part_of(DW, grid.dense_config, "pretraining", "seed"),
        stamp=stamp("import_weights"),
        run=untracked,
    message:
        "importing {wildcards.pretraining}"
    shell:
        "python -m winnow.stages.import_weights --config {params.config:q} --file {input:q} --out {output.weights:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


rule imp_prune:
    input:
        unpack(grid.last_round),
    output:
        f"{CHAIN}/tickets/imp-{{regime}}-{{round}}.mask.safetensors",
    log:
        f"{CHAIN}/logs/imp_prune-{{regime}}-{{round}}.log",
    benchmark:
        f"{CHAIN}/benchmarks/imp_prune-{{regime}}-{{round}}.tsv"
    localrule: True
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=memory("imp_prune"),
        runtime=runtime("imp_prune"),
    params:
        config=part_of(DW, grid.prune_config, "round"),
        stamp=stamp("imp_prune"),
        run=untracked,
    message:
        "pruning: {wildcards.pretraining}, IMP {wildcards.regime}, round {wildcards.round}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.imp_prune --config {params.config:q} --weights {input.weights:q} --mask {input.mask:q} --out {output:q} {params.run} 2> {log:q}"


imp_train_config = part_of(DW, grid.imp_train_config, "regime", "seed")


rule imp_train:
    input:
        init=f"{CHAIN}/dense.safetensors",
        mask=f"{CHAIN}/tickets/imp-{{regime}}-{{round}}.mask.safetensors",
    output:
        weights=f"{CHAIN}/trained/imp-{{regime}}-{{round}}.safetensors",
        metrics=f"{CHAIN}/trained/imp-{{regime}}-{{round}}.json",
    log:
        f"{CHAIN}/logs/imp_train-{{regime}}-{{round}}.log",
    benchmark:
        f"{CHAIN}/benchmarks/imp_train-{{regime}}-{{round}}.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    threads: DW.compute.threads if DW else 1
    resources:
        **GPU_MODEL,
        nodes=1,
        gpu=CONFIG.gpus,
        mem_mb=memory("imp_train", CONFIG.workers),
        runtime=runtime("imp_train", imp_train_config),
    params:
        config=imp_train_config,
        stamp=stamp("imp_train"),
        run=untracked,
    message:
        "training: {wildcards.pretraining}, IMP {wildcards.regime}, round {wildcards.round}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.imp_train --config {params.config:q} --init {input.init:q} --mask {input.mask:q} --out {output.weights:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


rule one_shot_prune:
    input:
        f"{CHAIN}/dense.safetensors",
    output:
        f"{CHAIN}/tickets/omp-{{round}}.mask.safetensors",
    log:
        f"{CHAIN}/logs/one_shot_prune-{{round}}.log",
    benchmark:
        f"{CHAIN}/benchmarks/one_shot_prune-{{round}}.tsv"
    localrule: True
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=memory("one_shot_prune"),
        runtime=runtime("one_shot_prune"),
    params:
        config=part_of(DW, grid.prune_config, "round"),
        stamp=stamp("one_shot_prune"),
        run=untracked,
    message:
        "one-shot pruning: {wildcards.pretraining}, as round {wildcards.round}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.one_shot_prune --config {params.config:q} --weights {input:q} --out {output:q} {params.run} 2> {log:q}"


rule random_prune:
    input:
        f"{CHAIN}/tickets/imp-{{regime}}-{{round}}.mask.safetensors",
    output:
        f"{CHAIN}/tickets/random-{{regime}}-{{round}}.mask.safetensors",
    log:
        f"{CHAIN}/logs/random_prune-{{regime}}-{{round}}.log",
    benchmark:
        f"{CHAIN}/benchmarks/random_prune-{{regime}}-{{round}}.tsv"
    localrule: True
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=memory("random_prune"),
        runtime=runtime("random_prune"),
    params:
        config=part_of(DW, grid.random_config, "seed"),
        stamp=stamp("random_prune"),
        run=untracked,
    message:
        "random pruning: {wildcards.pretraining}, as IMP {wildcards.regime} round {wildcards.round}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.random_prune --config {params.config:q} --like {input:q} --out {output:q} {params.run} 2> {log:q}"


rule export_ticket:
    input:
        mask=f"{CHAIN}/tickets/{{ticket}}.mask.safetensors",
        weights=f"{CHAIN}/dense.safetensors",
    output:
        ticket=f"{CHAIN}/exported/{{ticket}}.pth.tar",
        metrics=f"{CHAIN}/exported/{{ticket}}.json",
    log:
        f"{CHAIN}/logs/export_ticket-{{ticket}}.log",
    benchmark:
        f"{CHAIN}/benchmarks/export_ticket-{{ticket}}.tsv"
    wildcard_constraints:
        ticket=r"[\w.-]+",
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=memory("export_ticket"),
        runtime=runtime("export_ticket"),
    params:
        config="{}",
        stamp=stamp("export_ticket"),
        run=untracked,
    message:
        "exporting {wildcards.ticket}"
    shell:
        "python -m winnow.stages.export_ticket --config {params.config:q} --mask {input.mask:q} --weights {input.weights:q} --out {output.ticket:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


rule import_ticket:
    input:
        file=lambda wildcards: grid.extra_file(DW, wildcards),
        weights=f"{CHAIN}/dense.safetensors",
    output:
        f"{CHAIN}/tickets/extra-{{name}}.mask.safetensors",
    log:
        f"{CHAIN}/logs/import_ticket-{{name}}.log",
    benchmark:
        f"{CHAIN}/benchmarks/import_ticket-{{name}}.tsv"
    wildcard_constraints:
        name=r"[\w.]+",
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=memory("import_ticket"),
        runtime=runtime("import_ticket"),
    params:
        config="{}",
        stamp=stamp("import_ticket"),
        run=untracked,
    message:
        "importing the ticket {wildcards.name}"
    shell:
        "python -m winnow.stages.import_ticket --config {params.config:q} --file {input.file:q} --weights {input.weights:q} --out {output:q} {params.run} 2> {log:q}"
