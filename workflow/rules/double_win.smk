"""Double-win tickets (ICML 2022): pre-train or import, prune round by round, transfer standard and adversarially, evaluate.

REQUIRED INPUTS: none but the datasets of the configuration; weights or tickets from outside if it names any
OUTPUTS: results/tables/double_win.csv, results/figures/double_win/<task>-<percent>.{svg,pdf,png}

IMP rounds are a chain of artifacts (prune 1 -> train 1 -> prune 2 -> ...), so one more round runs one more round.
"""

from winnow.pipelines.double_win import grid as dw
from winnow.pipelines.double_win import inputs as starts

DW = CONFIG.double_win
CHAIN, TRANSFER = dw.CHAIN, dw.TRANSFER
IMPORTED = starts.imported_names(DW)
LOG, BENCHMARK = f"{CHAIN}/logs", f"{CHAIN}/benchmarks"
PRETRAIN = asked("pretrain", DW, dw.dense, "pretraining", "seed", gpus=CONFIG.gpus, loads=True)
IMPORT = asked("import_weights", DW, dw.dense, "pretraining", "seed")
PRUNE = asked("prune", DW, dw.prune, "seed", "ticket")
SCORE = asked("score", DW, dw.prune, "seed", "ticket", stage="prune", gpus=1, loads=True)
IMP_TRAIN = asked("imp_train", DW, dw.imp_train, "regime", "seed", stage="train", gpus=CONFIG.gpus, loads=True)
EXPORT = asked("export_ticket", DW, dw.export)
TICKET = asked("import_ticket", DW, dw.imported_ticket, "name")
MOVE = asked(
    "transfer", DW, dw.transfer, *starts.MOVED, gpus=CONFIG.gpus, loads=True, best_ra=signed(starts.best_ra_option)
)
EVALUATE = asked("evaluate", DW, dw.evaluate, "dataset", "run_seed", gpus=1, loads=True)
AUTOATTACK = asked("autoattack", DW, dw.autoattack, "dataset", "run_seed", gpus=1, loads=True)
KEPT = temp if DW.transfer.keep_models == "table" else str


rule pretrain:
    output:
        weights=f"{CHAIN}/dense.safetensors",
        metrics=f"{CHAIN}/dense.json",
    log:
        f"{LOG}/pretrain.log",
    benchmark:
        f"{BENCHMARK}/pretrain.tsv"
    wildcard_constraints:
        pretraining=rf"(?!(?:{IMPORTED})/)[\w.]+",
    conda:
        VISION
    threads: PRETRAIN.threads
    resources:
        **PRETRAIN.resources,
    params:
        **PRETRAIN.params,
    message:
        "pre-training {wildcards.pretraining} on {wildcards.source}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.pretrain --config {params.config:q} --out {output.weights:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


use rule bring_weights as import_weights with:
    input:
        signed(lambda wildcards: starts.weights_file(DW, wildcards)),
    output:
        weights=f"{CHAIN}/dense.safetensors",
        metrics=f"{CHAIN}/dense.json",
    log:
        f"{LOG}/import_weights.log",
    benchmark:
        f"{BENCHMARK}/import_weights.tsv"
    wildcard_constraints:
        pretraining=IMPORTED,
    resources:
        **IMPORT.resources,
    params:
        **IMPORT.params,
    message:
        "importing {wildcards.pretraining}"


localrules:
    prune_ticket,


use rule prune as prune_ticket with:
    input:
        unpack(signed(lambda wildcards: starts.pruned(DW, wildcards))),
    output:
        f"{CHAIN}/tickets/{{ticket}}.mask.safetensors",
    log:
        f"{LOG}/prune-{{ticket}}.log",
    wildcard_constraints:
        ticket=dw.LIGHT_TICKETS,
    resources:
        **PRUNE.resources,
    params:
        **PRUNE.params,
    message:
        "pruning: {wildcards.pretraining}, {wildcards.ticket}, seed {wildcards.seed}"


use rule score as score_ticket with:
    input:
        unpack(signed(lambda wildcards: starts.pruned(DW, wildcards))),
    output:
        f"{CHAIN}/tickets/{{ticket}}.mask.safetensors",
    log:
        f"{LOG}/score-{{ticket}}.log",
    benchmark:
        f"{BENCHMARK}/score-{{ticket}}.tsv"
    wildcard_constraints:
        ticket=dw.SCORED_TICKETS,
    threads: SCORE.threads
    resources:
        **SCORE.resources,
    params:
        **SCORE.params,
    message:
        "pruning by scores: {wildcards.pretraining}, {wildcards.ticket}, seed {wildcards.seed}"


use rule train as imp_train with:
    input:
        init=signed(lambda wildcards: starts.imp_start(DW, wildcards)),
        mask=f"{CHAIN}/tickets/imp-{{regime}}-{{round}}.mask.safetensors",
    output:
        weights=f"{CHAIN}/trained/imp-{{regime}}-{{round}}.safetensors",
        metrics=f"{CHAIN}/trained/imp-{{regime}}-{{round}}.json",
    log:
        f"{LOG}/imp_train-{{regime}}-{{round}}.log",
    benchmark:
        f"{BENCHMARK}/imp_train-{{regime}}-{{round}}.tsv"
    threads: IMP_TRAIN.threads
    resources:
        **IMP_TRAIN.resources,
    params:
        **IMP_TRAIN.params,
    message:
        "training: {wildcards.pretraining}, IMP {wildcards.regime}, round {wildcards.round}, seed {wildcards.seed}"


rule export_ticket:
    input:
        mask=f"{CHAIN}/tickets/{{ticket}}.mask.safetensors",
        weights=f"{CHAIN}/dense.safetensors",
    output:
        ticket=f"{CHAIN}/exported/{{ticket}}.pth.tar",
        metrics=f"{CHAIN}/exported/{{ticket}}.json",
    log:
        f"{LOG}/export_ticket-{{ticket}}.log",
    benchmark:
        f"{BENCHMARK}/export_ticket-{{ticket}}.tsv"
    conda:
        VISION
    resources:
        **EXPORT.resources,
    params:
        **EXPORT.params,
    message:
        "exporting {wildcards.ticket}"
    shell:
        "python -m winnow.stages.export_ticket --config {params.config:q} --mask {input.mask:q} --weights {input.weights:q} --out {output.ticket:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


rule import_ticket:
    input:
        file=signed(lambda wildcards: starts.extra_file(DW, wildcards)),
        weights=f"{CHAIN}/dense.safetensors",
    output:
        f"{CHAIN}/tickets/extra-{{name}}.mask.safetensors",
    log:
        f"{LOG}/import_ticket-{{name}}.log",
    benchmark:
        f"{BENCHMARK}/import_ticket-{{name}}.tsv"
    wildcard_constraints:
        name=r"[\w.]+",
    conda:
        VISION
    resources:
        **TICKET.resources,
    params:
        **TICKET.params,
    message:
        "importing the ticket {wildcards.name}"
    shell:
        "python -m winnow.stages.import_ticket --config {params.config:q} --file {input.file:q} --weights {input.weights:q} --out {output:q} {params.run} 2> {log:q}"


rule transfer_std:
    input:
        unpack(signed(starts.transferred)),
    output:
        best_sa=KEPT(f"{TRANSFER}/{{mode}}/s{{run_seed}}/best_sa.safetensors"),
        metrics=f"{TRANSFER}/{{mode}}/s{{run_seed}}/transfer.json",
    log:
        f"{TRANSFER}/{{mode}}/s{{run_seed}}/transfer.log",
    benchmark:
        f"{TRANSFER}/{{mode}}/s{{run_seed}}/transfer.tsv"
    wildcard_constraints:
        mode="std",
    conda:
        VISION
    threads: MOVE.threads
    resources:
        **MOVE.resources,
    params:
        **MOVE.params,
    message:
        "{wildcards.mode} transfer of {wildcards.pretraining}/{wildcards.ticket} to {wildcards.dataset} ({wildcards.percent} %)"
    shell:
        "python -m winnow.stages.transfer --config {params.config:q} --init {input.init:q} --mask {input.mask:q} --best-sa {output.best_sa:q} {params.best_ra} --metrics {output.metrics:q} {params.run} 2> {log:q}"


use rule transfer_std as transfer_adv with:
    output:
        best_sa=KEPT(f"{TRANSFER}/{{mode}}/s{{run_seed}}/best_sa.safetensors"),
        best_ra=KEPT(f"{TRANSFER}/{{mode}}/s{{run_seed}}/best_ra.safetensors"),
        metrics=f"{TRANSFER}/{{mode}}/s{{run_seed}}/transfer.json",
    wildcard_constraints:
        mode="adv",


rule evaluate:
    input:
        best_sa=f"{TRANSFER}/{{mode}}/s{{run_seed}}/best_sa.safetensors",
        best_ra=signed(starts.best_ra),
    output:
        f"{TRANSFER}/{{mode}}/s{{run_seed}}/evaluation.json",
    log:
        f"{TRANSFER}/{{mode}}/s{{run_seed}}/evaluation.log",
    benchmark:
        f"{TRANSFER}/{{mode}}/s{{run_seed}}/evaluation.tsv"
    conda:
        VISION
    threads: EVALUATE.threads
    resources:
        **EVALUATE.resources,
    params:
        **EVALUATE.params,
    message:
        "evaluating {wildcards.pretraining}/{wildcards.ticket} on {wildcards.dataset}, {wildcards.mode} transfer"
    shell:
        "python -m winnow.stages.evaluate --config {params.config:q} --best-sa {input.best_sa:q} --best-ra {input.best_ra:q} --metrics {output:q} {params.run} 2> {log:q}"


rule autoattack:
    input:
        f"{TRANSFER}/{{mode}}/s{{run_seed}}/best_ra.safetensors",
    output:
        f"{TRANSFER}/{{mode}}/s{{run_seed}}/autoattack.json",
    log:
        f"{TRANSFER}/{{mode}}/s{{run_seed}}/autoattack.log",
    benchmark:
        f"{TRANSFER}/{{mode}}/s{{run_seed}}/autoattack.tsv"
    conda:
        VISION
    threads: AUTOATTACK.threads
    resources:
        **AUTOATTACK.resources,
    params:
        **AUTOATTACK.params,
    message:
        "AutoAttack on {wildcards.pretraining}/{wildcards.ticket}, transferred to {wildcards.dataset}"
    shell:
        "python -m winnow.stages.autoattack --config {params.config:q} --weights {input:q} --metrics {output:q} {params.run} 2> {log:q}"
