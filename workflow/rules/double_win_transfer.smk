"""Double-win tickets (ICML 2022), the downstream tasks: transfer standard and adversarially, evaluate on the test split.

REQUIRED INPUTS: dense weights and tickets of double_win.smk
OUTPUTS: models and evaluation.json below .../transfer/<dataset>/<percent>/<ticket>/<mode>/s<seed>/
"""

TRANSFER = f"{CHAIN}/transfer/{{dataset}}/{{percent}}/{{ticket}}"


transfer_std_config = part_of(DW, grid.std_config, "dataset", "percent", "run_seed")


rule transfer_std:
    input:
        unpack(grid.transferred),
    output:
        best_sa=f"{TRANSFER}/std/s{{run_seed}}/best_sa.safetensors",
        metrics=f"{TRANSFER}/std/s{{run_seed}}/transfer.json",
    log:
        f"{TRANSFER}/std/s{{run_seed}}/transfer.log",
    benchmark:
        f"{TRANSFER}/std/s{{run_seed}}/transfer.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    threads: DW.compute.threads if DW else 1
    resources:
        **GPU_MODEL,
        nodes=1,
        gpu=CONFIG.gpus,
        mem_mb=memory("transfer_std", CONFIG.workers),
        runtime=runtime("transfer_std", transfer_std_config),
    params:
        config=transfer_std_config,
        stamp=stamp("transfer"),
        run=untracked,
    message:
        "standard transfer of {wildcards.pretraining}/{wildcards.ticket} to {wildcards.dataset} ({wildcards.percent} %)"
    shell:
        "python -m winnow.stages.transfer --config {params.config:q} --init {input.init:q} --mask {input.mask:q} --best-sa {output.best_sa:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


transfer_adv_config = part_of(DW, grid.adv_config, "dataset", "percent", "run_seed")


rule transfer_adv:
    input:
        unpack(grid.transferred),
    output:
        best_sa=f"{TRANSFER}/adv/s{{run_seed}}/best_sa.safetensors",
        best_ra=f"{TRANSFER}/adv/s{{run_seed}}/best_ra.safetensors",
        metrics=f"{TRANSFER}/adv/s{{run_seed}}/transfer.json",
    log:
        f"{TRANSFER}/adv/s{{run_seed}}/transfer.log",
    benchmark:
        f"{TRANSFER}/adv/s{{run_seed}}/transfer.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    threads: DW.compute.threads if DW else 1
    resources:
        **GPU_MODEL,
        nodes=1,
        gpu=CONFIG.gpus,
        mem_mb=memory("transfer_adv", CONFIG.workers),
        runtime=runtime("transfer_adv", transfer_adv_config),
    params:
        config=transfer_adv_config,
        stamp=stamp("transfer"),
        run=untracked,
    message:
        "adversarial transfer of {wildcards.pretraining}/{wildcards.ticket} to {wildcards.dataset} ({wildcards.percent} %)"
    shell:
        "python -m winnow.stages.transfer --config {params.config:q} --init {input.init:q} --mask {input.mask:q} --best-sa {output.best_sa:q} --best-ra {output.best_ra:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


evaluate_config = part_of(DW, grid.evaluate_config, "dataset", "run_seed")


rule evaluate:
    input:
        best_sa=f"{TRANSFER}/{{mode}}/s{{run_seed}}/best_sa.safetensors",
        best_ra=grid.best_ra,
    output:
        f"{TRANSFER}/{{mode}}/s{{run_seed}}/evaluation.json",
    log:
        f"{TRANSFER}/{{mode}}/s{{run_seed}}/evaluation.log",
    benchmark:
        f"{TRANSFER}/{{mode}}/s{{run_seed}}/evaluation.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    threads: DW.compute.threads if DW else 1
    resources:
        **GPU_MODEL,
        nodes=1,
        gpu=1,
        mem_mb=memory("evaluate", CONFIG.workers),
        runtime=runtime("evaluate", evaluate_config),
    params:
        config=evaluate_config,
        stamp=stamp("evaluate"),
        run=untracked,
    message:
        "evaluating {wildcards.pretraining}/{wildcards.ticket} on {wildcards.dataset}, {wildcards.mode} transfer"
    shell:
        "python -m winnow.stages.evaluate --config {params.config:q} --best-sa {input.best_sa:q} --best-ra {input.best_ra:q} --metrics {output:q} {params.run} 2> {log:q}"
