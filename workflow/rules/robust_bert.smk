"""Robust tickets (ACL 2022.acl-long.157): fine-tune, search scores, draw, retrain from the pre-trained weights, attack.

REQUIRED INPUTS: none but the model, the datasets and the attack assets that the configuration names
OUTPUTS: results/tables/robust_bert.csv, results/figures/robust_bert/<task>.{svg,pdf,png}

One search serves every sparsity: another removed fraction draws, retrains and attacks, and never searches. A model folder
is named by its model.safetensors; its other files come and go with it.
"""

from winnow.pipelines.robust_bert import grid as rb
from winnow.pipelines.robust_bert import inputs as texts

RB = CONFIG.robust_bert
OF_TASK, OF_SEED = rb.TASK, rb.SEED
RB_LOG, RB_BENCHMARK = f"{OF_SEED}/logs", f"{OF_SEED}/benchmarks"
RB_THREADS = RB.compute.threads
RB_KEPT = rb.kept_epochs(RB)


wildcard_constraints:
    model=r"[\w.]+",
    task=r"[\w.]+",
    attacker=r"[\w.]+",
    epoch=r"\d+",


FETCH = asked("fetch_attack_assets", RB, rb.fetch, env="text")
BRING = asked("import_text_model", RB, rb.import_model, "task", env="text", threads=RB_THREADS)
TUNE = asked(
    "finetune_text", RB, rb.finetune, "task", "network", "seed", env="text", gpus=CONFIG.gpus, kept=signed(texts.kept_option)
)  # fmt: skip
SEARCH = asked("search_robust_ticket", RB, rb.search, "task", "seed", env="text", gpus=CONFIG.gpus)
DRAW = asked("draw_ticket", RB, rb.draw, "percent", env="text")
RB_PRUNE = asked("prune", RB, rb.prune, "task", "kind", "percent", "seed", env="text")
RB_SCORE = asked("score", RB, rb.prune, "task", "kind", "percent", "seed", stage="prune", env="text", gpus=1)
ATTACK = asked(
    "attack_text", RB, rb.attack, "task", "attacker", "seed", env="text", gpus=1, threads=RB_THREADS * RB.attack_processes,
    assets=signed(lambda wildcards, input: texts.asset_arguments(RB, wildcards)),
    processes=signed(lambda wildcards, input: f"--workers {RB.attack_processes}"),
)  # fmt: skip


rule fetch_attack_assets:
    output:
        f"{rb.FETCHED}/manifest.json",
    log:
        f"{rb.FETCHED}/fetch.log",
    localrule: True
    conda:
        TEXT
    resources:
        **FETCH.resources,
    params:
        **FETCH.params,
    message:
        "fetching attack assets into data/attack_assets"
    shell:
        "python -m winnow.stages.fetch_attack_assets --config {params.config:q} --manifest {output:q} {params.run} 2> {log:q}"


rule import_text_model:
    input:
        texts.model_inputs(RB, CONFIG.data_root),
    output:
        f"{OF_TASK}/pretrained/model.safetensors",
    log:
        f"{OF_TASK}/logs/import_text_model.log",
    benchmark:
        f"{OF_TASK}/benchmarks/import_text_model.tsv"
    conda:
        TEXT
    threads: BRING.threads
    resources:
        **BRING.resources,
    params:
        **BRING.params,
    message:
        "bringing in {wildcards.model} for {wildcards.task}"
    shell:
        "python -m winnow.stages.import_text_model --config {params.config:q} --out {output:q} {params.run} 2> {log:q}"


rule finetune_text:
    input:
        unpack(signed(texts.tuned)),
    output:
        model=f"{OF_SEED}/{{network}}/model.safetensors",
        metrics=f"{OF_SEED}/training/{{network}}.json",
    log:
        f"{RB_LOG}/finetune_text-{{network}}.log",
    benchmark:
        f"{RB_BENCHMARK}/finetune_text-{{network}}.tsv"
    wildcard_constraints:
        network="dense|freelb" if RB_KEPT else r"[\w.-]+",
    conda:
        TEXT
    threads: TUNE.threads
    resources:
        **TUNE.resources,
    params:
        **TUNE.params,
    message:
        "training {wildcards.network} of {wildcards.model} on {wildcards.task}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.finetune_text --config {params.config:q} --model {input.model:q} --mask {input.mask:q} --out {output.model:q} {params.kept} --metrics {output.metrics:q} {params.run} 2> {log:q}"


if RB_KEPT:  # tickets are attacked on the way as well

    use rule finetune_text as retrain_text with:
        output:
            model=f"{OF_SEED}/{{network}}/model.safetensors",
            kept=[f"{OF_SEED}/{{network,[\\w.-]+}}{rb.EPOCH}{e}/model.safetensors" for e in RB_KEPT],
            metrics=f"{OF_SEED}/training/{{network}}.json",
        wildcard_constraints:
            network=rb.RETRAINED,


rule search_robust_ticket:
    input:
        f"{OF_SEED}/dense/model.safetensors",
    output:
        scores=[f"{OF_SEED}/scores/epoch-{e}.safetensors" for e in RB.tasks[0].search_epochs],
        metrics=f"{OF_SEED}/scores/search.json",
    log:
        f"{RB_LOG}/search_robust_ticket.log",
    benchmark:
        f"{RB_BENCHMARK}/search_robust_ticket.tsv"
    conda:
        TEXT
    threads: SEARCH.threads
    resources:
        **SEARCH.resources,
    params:
        **SEARCH.params,
    message:
        "searching robust tickets of {wildcards.model} on {wildcards.task}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.search_robust_ticket --config {params.config:q} --model {input:q} --scores {output.scores:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


rule draw_ticket:
    input:
        f"{OF_SEED}/scores/epoch-{{epoch}}.safetensors",
    output:
        f"{OF_SEED}/tickets/robust-{{epoch}}-{{percent}}.mask.safetensors",
    log:
        f"{RB_LOG}/draw_ticket-{{epoch}}-{{percent}}.log",
    localrule: True
    conda:
        TEXT
    resources:
        **DRAW.resources,
    params:
        **DRAW.params,
    message:
        "drawing: {wildcards.task}, epoch {wildcards.epoch}, {wildcards.percent} % removed, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.draw_ticket --config {params.config:q} --scores {input:q} --out {output:q} {params.run} 2> {log:q}"


localrules:
    prune_text,


use rule prune as prune_text with:
    input:
        unpack(signed(lambda wildcards: texts.pruned(RB, wildcards))),
    output:
        f"{OF_SEED}/tickets/{{kind}}-{{percent}}.mask.safetensors",
    log:
        f"{RB_LOG}/prune-{{kind}}-{{percent}}.log",
    wildcard_constraints:
        kind=rb.LIGHT_KINDS,
    conda:
        TEXT
    resources:
        **RB_PRUNE.resources,
    params:
        **RB_PRUNE.params,
    message:
        "pruning: {wildcards.task}, {wildcards.kind}, {wildcards.percent} % removed, seed {wildcards.seed}"


use rule score as score_text with:
    input:
        unpack(signed(lambda wildcards: texts.pruned(RB, wildcards))),
    output:
        f"{OF_SEED}/tickets/{{kind}}-{{percent}}.mask.safetensors",
    log:
        f"{RB_LOG}/score-{{kind}}-{{percent}}.log",
    benchmark:
        f"{RB_BENCHMARK}/score-{{kind}}-{{percent}}.tsv"
    wildcard_constraints:
        kind=rb.SCORED_KINDS,
    conda:
        TEXT
    threads: RB_SCORE.threads
    resources:
        **RB_SCORE.resources,
    params:
        **RB_SCORE.params,
    message:
        "pruning by scores: {wildcards.task}, {wildcards.kind}, {wildcards.percent} % removed, seed {wildcards.seed}"


rule attack_text:
    input:
        unpack(signed(lambda wildcards: texts.asset_inputs(RB, wildcards))),
        model=f"{OF_SEED}/{{network}}/model.safetensors",
    output:
        rows=f"{OF_SEED}/attacks/{{attacker}}/{{network}}.jsonl",
        metrics=f"{OF_SEED}/attacks/{{attacker}}/{{network}}.json",
    log:
        f"{RB_LOG}/attack_text-{{attacker}}-{{network}}.log",
    benchmark:
        f"{RB_BENCHMARK}/attack_text-{{attacker}}-{{network}}.tsv"
    wildcard_constraints:
        network=r"[\w.-]+",
    conda:
        TEXT
    threads: ATTACK.threads
    resources:
        **ATTACK.resources,
    params:
        **ATTACK.params,
    message:
        "attacking {wildcards.network} of {wildcards.task} with {wildcards.attacker}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.attack_text --config {params.config:q} --model {input.model:q} {params.assets} --out {output.rows:q} --metrics {output.metrics:q} {params.run} {params.processes} 2> {log:q}"
