"""Robust tickets (ACL 2022.acl-long.157): fine-tune, search scores, draw, retrain from the pre-trained weights, attack.

REQUIRED INPUTS: none but the model, the datasets and the attack assets that the configuration names
OUTPUTS: results/tables/robust_bert.csv, results/figures/robust_bert/<task>.{svg,png}

One search serves every sparsity: another removed fraction draws, retrains and attacks, and never searches. A model folder
is named by its model.safetensors; its other files come and go with it.
"""

from winnow.grid import robust_bert as rb_grid

RB = CONFIG.robust_bert
RB_TASK = rb_grid.TASK
RB_SEED = rb_grid.SEED


rule fetch_attack_assets:
    output:
        f"{rb_grid.FETCHED}/manifest.json",
    log:
        f"{rb_grid.FETCHED}/fetch.log",
    benchmark:
        f"{rb_grid.FETCHED}/fetch.tsv"
    localrule: True
    conda:
        f"{ENVS}/text.yaml"
    resources:
        mem_mb=memory("fetch_attack_assets"),
        runtime=runtime("fetch_attack_assets"),
    params:
        config=part_of(RB, rb_grid.fetch_config),
        stamp=stamp("fetch_attack_assets", "text"),
        run=untracked,
    message:
        "fetching attack assets into data/attack_assets"
    shell:
        "python -m winnow.stages.fetch_attack_assets --config {params.config:q} --manifest {output:q} {params.run} 2> {log:q}"


import_text_model_config = part_of(RB, rb_grid.import_config, "task")


rule import_text_model:
    input:
        lambda wildcards: rb_grid.model_inputs(RB, CONFIG.data_root),
    output:
        f"{RB_TASK}/pretrained/model.safetensors",
    log:
        f"{RB_TASK}/logs/import_text_model.log",
    benchmark:
        f"{RB_TASK}/benchmarks/import_text_model.tsv"
    conda:
        f"{ENVS}/text.yaml"
    threads: RB.compute.threads if RB else 1
    resources:
        mem_mb=memory("import_text_model"),
        runtime=runtime("import_text_model", import_text_model_config),
    params:
        config=import_text_model_config,
        stamp=stamp("import_text_model", "text"),
        run=untracked,
    message:
        "bringing in {wildcards.model} for {wildcards.task}"
    shell:
        "python -m winnow.stages.import_text_model --config {params.config:q} --out {output:q} {params.run} 2> {log:q}"


finetune_text_config = part_of(RB, rb_grid.finetune_config, "task", "network", "seed")


rule finetune_text:
    input:
        f"{RB_TASK}/pretrained/model.safetensors",
    output:
        model=f"{RB_SEED}/{{network}}/model.safetensors",
        metrics=f"{RB_SEED}/training/{{network}}.json",
    log:
        f"{RB_SEED}/logs/finetune_text-{{network}}.log",
    benchmark:
        f"{RB_SEED}/benchmarks/finetune_text-{{network}}.tsv"
    wildcard_constraints:
        network="dense|freelb",
    conda:
        f"{ENVS}/text.yaml"
    threads: RB.compute.threads if RB else 1
    resources:
        **GPU_MODEL,
        nodes=1,
        gpu=CONFIG.gpus,
        mem_mb=memory("finetune_text"),
        runtime=runtime("finetune_text", finetune_text_config),
    params:
        config=finetune_text_config,
        stamp=stamp("finetune_text", "text"),
        run=untracked,
    message:
        "fine-tuning {wildcards.model} on {wildcards.task} ({wildcards.network}), seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.finetune_text --config {params.config:q} --model {input:q} --out {output.model:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


search_robust_ticket_config = part_of(RB, rb_grid.search_config, "task", "seed")


rule search_robust_ticket:
    input:
        f"{RB_SEED}/dense/model.safetensors",
    output:
        scores=[f"{RB_SEED}/scores/epoch-{e}.safetensors" for e in rb_grid.search_epochs(RB)],
        metrics=f"{RB_SEED}/scores/search.json",
    log:
        f"{RB_SEED}/logs/search_robust_ticket.log",
    benchmark:
        f"{RB_SEED}/benchmarks/search_robust_ticket.tsv"
    conda:
        f"{ENVS}/text.yaml"
    threads: RB.compute.threads if RB else 1
    resources:
        **GPU_MODEL,
        nodes=1,
        gpu=CONFIG.gpus,
        mem_mb=memory("search_robust_ticket"),
        runtime=runtime("search_robust_ticket", search_robust_ticket_config),
    params:
        config=search_robust_ticket_config,
        stamp=stamp("search_robust_ticket", "text"),
        run=untracked,
    message:
        "searching robust tickets of {wildcards.model} on {wildcards.task}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.search_robust_ticket --config {params.config:q} --model {input:q} --scores {output.scores:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


rule draw_ticket:
    input:
        f"{RB_SEED}/scores/epoch-{{epoch}}.safetensors",
    output:
        f"{RB_SEED}/tickets/robust-{{epoch}}-{{percent}}.mask.safetensors",
    log:
        f"{RB_SEED}/logs/draw_ticket-{{epoch}}-{{percent}}.log",
    benchmark:
        f"{RB_SEED}/benchmarks/draw_ticket-{{epoch}}-{{percent}}.tsv"
    wildcard_constraints:
        epoch=r"\d+",
        percent=r"[\d.]+",
    localrule: True
    conda:
        f"{ENVS}/text.yaml"
    resources:
        mem_mb=memory("draw_ticket"),
        runtime=runtime("draw_ticket"),
    params:
        config=lambda wildcards: canonical_json(rb_grid.draw_config(wildcards.percent)),
        stamp=stamp("draw_ticket", "text"),
        run=untracked,
    message:
        "drawing: {wildcards.task}, epoch {wildcards.epoch}, {wildcards.percent} % removed, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.draw_ticket --config {params.config:q} --scores {input:q} --out {output:q} {params.run} 2> {log:q}"


rule magnitude_ticket:
    input:
        f"{RB_SEED}/dense/model.safetensors",
    output:
        f"{RB_SEED}/tickets/magnitude-{{percent}}.mask.safetensors",
    log:
        f"{RB_SEED}/logs/magnitude_ticket-{{percent}}.log",
    benchmark:
        f"{RB_SEED}/benchmarks/magnitude_ticket-{{percent}}.tsv"
    wildcard_constraints:
        percent=r"[\d.]+",
    localrule: True
    conda:
        f"{ENVS}/text.yaml"
    resources:
        mem_mb=memory("magnitude_ticket"),
        runtime=runtime("magnitude_ticket"),
    params:
        config=lambda wildcards: canonical_json(rb_grid.keep_config(wildcards.percent)),
        stamp=stamp("magnitude_ticket", "text"),
        run=untracked,
    message:
        "magnitude ticket: {wildcards.task}, {wildcards.percent} % removed, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.magnitude_ticket --config {params.config:q} --weights {input:q} --out {output:q} {params.run} 2> {log:q}"


rule random_ticket:
    input:
        f"{RB_TASK}/pretrained/model.safetensors",
    output:
        f"{RB_SEED}/tickets/random-{{percent}}.mask.safetensors",
    log:
        f"{RB_SEED}/logs/random_ticket-{{percent}}.log",
    benchmark:
        f"{RB_SEED}/benchmarks/random_ticket-{{percent}}.tsv"
    wildcard_constraints:
        percent=r"[\d.]+",
    localrule: True
    conda:
        f"{ENVS}/text.yaml"
    resources:
        mem_mb=memory("random_ticket"),
        runtime=runtime("random_ticket"),
    params:
        config=lambda wildcards: canonical_json(rb_grid.keep_config(wildcards.percent, int(wildcards.seed))),
        stamp=stamp("random_ticket", "text"),
        run=untracked,
    message:
        "random ticket: {wildcards.task}, {wildcards.percent} % removed, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.random_ticket --config {params.config:q} --weights {input:q} --out {output:q} {params.run} 2> {log:q}"


retrain_ticket_config = part_of(RB, rb_grid.finetune_config, "task", "network", "seed")


rule retrain_ticket:
    input:
        model=f"{RB_TASK}/pretrained/model.safetensors",
        mask=f"{RB_SEED}/tickets/{{network}}.mask.safetensors",
    output:
        model=f"{RB_SEED}/{{network}}/model.safetensors",
        metrics=f"{RB_SEED}/training/{{network}}.json",
    log:
        f"{RB_SEED}/logs/retrain_ticket-{{network}}.log",
    benchmark:
        f"{RB_SEED}/benchmarks/retrain_ticket-{{network}}.tsv"
    wildcard_constraints:
        network=r"(robust|random|magnitude)-[\d.-]+",
    conda:
        f"{ENVS}/text.yaml"
    threads: RB.compute.threads if RB else 1
    resources:
        **GPU_MODEL,
        nodes=1,
        gpu=CONFIG.gpus,
        mem_mb=memory("retrain_ticket"),
        runtime=runtime("retrain_ticket", retrain_ticket_config),
    params:
        config=retrain_ticket_config,
        stamp=stamp("retrain_ticket", "text"),
        run=untracked,
    message:
        "retraining {wildcards.network} of {wildcards.model} on {wildcards.task}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.retrain_ticket --config {params.config:q} --model {input.model:q} --mask {input.mask:q} --out {output.model:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


attack_text_config = part_of(RB, rb_grid.attack_config, "task", "attacker", "seed")


rule attack_text:
    input:
        unpack(lambda wildcards: rb_grid.asset_inputs(RB, wildcards)),
        model=f"{RB_SEED}/{{network}}/model.safetensors",
    output:
        rows=f"{RB_SEED}/attacks/{{attacker}}/{{network}}.jsonl",
        metrics=f"{RB_SEED}/attacks/{{attacker}}/{{network}}.json",
    log:
        f"{RB_SEED}/logs/attack_text-{{attacker}}-{{network}}.log",
    benchmark:
        f"{RB_SEED}/benchmarks/attack_text-{{attacker}}-{{network}}.tsv"
    wildcard_constraints:
        attacker=r"[\w.]+",
        network=r"[\w.-]+",
    conda:
        f"{ENVS}/text.yaml"
    threads: (RB.compute.threads * RB.attack_processes) if RB else 1
    resources:
        **GPU_MODEL,
        nodes=1,
        gpu=1,
        mem_mb=memory("attack_text"),
        runtime=runtime("attack_text", attack_text_config),
    params:
        config=attack_text_config,
        stamp=stamp("attack_text", "text"),
        run=lambda wildcards, input: f"{RUN} --workers {RB.attack_processes}",
        assets=lambda wildcards, input: rb_grid.asset_arguments(RB, wildcards),
    message:
        "attacking {wildcards.network} of {wildcards.task} with {wildcards.attacker}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.attack_text --config {params.config:q} --model {input.model:q} {params.assets} --out {output.rows:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"
