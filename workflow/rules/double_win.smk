"""Double-win tickets (ICML 2022): pre-train or import, prune round by round, transfer, evaluate, compare.

REQUIRED INPUTS: none but the datasets of the configuration; weights or tickets from outside if it names any
OUTPUTS: results/tables/double_win.csv, results/figures/double_win/<dataset>-<percent>.{svg,png}

IMP rounds are a chain of artifacts (prune 1 -> train 1 -> prune 2 -> ...), so one more round runs one more round.
"""

from winnow.grid import double_win as grid

DW = CONFIG.double_win
CHAIN = "results/double_win/{source}/{pretraining}/s{seed}"


def double_win_targets():
    """The table and figures of the configured section; nothing without one."""
    if DW is None:
        return []
    shown = [f"{d.name}-{grid.percent(f)}" for d in DW.downstreams for f in d.fractions]
    return ["results/tables/double_win.csv", *(f"results/figures/double_win/{s}.svg" for s in shown)]


def dw_config(build, *names):
    """A params function: `build(section, *wildcards)` as canonical JSON."""
    return lambda wildcards: canonical_json(build(DW, *(wildcards[n] for n in names)))


def dw_seeded(build, *names, seed="seed"):
    """The same with a seed as its last argument."""
    return lambda wildcards: canonical_json(build(DW, *(wildcards[n] for n in names), int(wildcards[seed])))


def dw_imported():
    """Regex of the pre-trainings that are brought in rather than trained."""
    return "|".join(p.name for p in DW.pretrainings if p.method == "import") if DW else ""


def dw_weights_file(wildcards):
    """The local file of an imported pre-training; none for torchvision and hub weights."""
    file = grid.named(DW.pretrainings, wildcards.pretraining).weights.file
    return file.replace("{seed}", wildcards.seed) if file else []


def dw_last_round(wildcards):
    """What round k prunes: the dense weights (k = 1), or what round k-1 trained, with its mask."""
    chain, last = CHAIN.format(**wildcards), int(wildcards.round) - 1
    if last == 0:
        return {"weights": f"{chain}/dense.safetensors", "mask": []}
    name = f"imp-{wildcards.regime}-{last}"
    return {"weights": f"{chain}/trained/{name}.safetensors", "mask": f"{chain}/tickets/{name}.mask.safetensors"}


def dw_extra_file(wildcards):
    """The file of a ticket from outside the grid."""
    return grid.named(DW.transfer.tickets, wildcards.name).file.replace("{seed}", wildcards.seed)


def dw_transferred(wildcards):
    """Dense weights and, unless the dense model itself is transferred, a ticket."""
    chain = CHAIN.format(**wildcards)
    mask = [] if wildcards.ticket == "dense" else f"{chain}/tickets/{wildcards.ticket}.mask.safetensors"
    return {"init": f"{chain}/dense.safetensors", "mask": mask}


rule pretrain:
    output:
        weights=f"{CHAIN}/dense.safetensors",
        metrics=f"{CHAIN}/dense.json",
    log:
        f"{CHAIN}/logs/pretrain.log",
    benchmark:
        f"{CHAIN}/benchmarks/pretrain.tsv"
    wildcard_constraints:
        pretraining=rf"(?!({dw_imported()})/)[\w.]+" if dw_imported() else r"[\w.]+",
    conda:
        f"{ENVS}/vision.yaml"
    threads: DW.compute.threads if DW else 1
    resources:
        gpu=1,
        mem_mb=more(4000),
        runtime=more(60),
    params:
        config=dw_seeded(grid.dense_config, "pretraining"),
        stamp=stamp("pretrain"),
    message:
        "pre-training {wildcards.pretraining} on {wildcards.source}, seed {wildcards.seed}"
    shell:
        "{STAGE}.pretrain --config {params.config:q} --out {output.weights} --metrics {output.metrics} {RUN} 2> {log}"


rule import_weights:
    input:
        dw_weights_file,
    output:
        weights=f"{CHAIN}/dense.safetensors",
        metrics=f"{CHAIN}/dense.json",
    log:
        f"{CHAIN}/logs/import_weights.log",
    benchmark:
        f"{CHAIN}/benchmarks/import_weights.tsv"
    wildcard_constraints:
        pretraining=dw_imported() or "(?!)",
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=more(4000),
        runtime=more(15),
    params:
        config=dw_seeded(grid.dense_config, "pretraining"),
        stamp=stamp("import_weights"),
    message:
        "importing {wildcards.pretraining}"
    shell:
        "{STAGE}.import_weights --config {params.config:q} --file {input} --out {output.weights} --metrics {output.metrics} {RUN} 2> {log}"


rule imp_prune:
    input:
        unpack(dw_last_round),
    output:
        f"{CHAIN}/tickets/imp-{{regime}}-{{round}}.mask.safetensors",
    log:
        f"{CHAIN}/logs/imp_prune-{{regime}}-{{round}}.log",
    benchmark:
        f"{CHAIN}/benchmarks/imp_prune-{{regime}}-{{round}}.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=more(2000),
        runtime=more(10),
    params:
        config=lambda wildcards: canonical_json(grid.prune_config(DW, int(wildcards.round))),
        stamp=stamp("imp_prune"),
    message:
        "pruning: {wildcards.pretraining}, IMP {wildcards.regime}, round {wildcards.round}, seed {wildcards.seed}"
    shell:
        "{STAGE}.imp_prune --config {params.config:q} --weights {input.weights} --mask {input.mask} --out {output} {RUN} 2> {log}"


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
        gpu=1,
        mem_mb=more(4000),
        runtime=more(60),
    params:
        config=dw_seeded(grid.imp_train_config, "regime"),
        stamp=stamp("imp_train"),
    message:
        "training: {wildcards.pretraining}, IMP {wildcards.regime}, round {wildcards.round}, seed {wildcards.seed}"
    shell:
        "{STAGE}.imp_train --config {params.config:q} --init {input.init} --mask {input.mask} --out {output.weights} --metrics {output.metrics} {RUN} 2> {log}"


rule one_shot_prune:
    input:
        f"{CHAIN}/dense.safetensors",
    output:
        f"{CHAIN}/tickets/omp-{{round}}.mask.safetensors",
    log:
        f"{CHAIN}/logs/one_shot_prune-{{round}}.log",
    benchmark:
        f"{CHAIN}/benchmarks/one_shot_prune-{{round}}.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=more(2000),
        runtime=more(10),
    params:
        config=lambda wildcards: canonical_json(grid.prune_config(DW, int(wildcards.round))),
        stamp=stamp("one_shot_prune"),
    message:
        "one-shot pruning: {wildcards.pretraining}, as round {wildcards.round}, seed {wildcards.seed}"
    shell:
        "{STAGE}.one_shot_prune --config {params.config:q} --weights {input} --out {output} {RUN} 2> {log}"


rule random_prune:
    input:
        f"{CHAIN}/tickets/imp-{{regime}}-{{round}}.mask.safetensors",
    output:
        f"{CHAIN}/tickets/random-{{regime}}-{{round}}.mask.safetensors",
    log:
        f"{CHAIN}/logs/random_prune-{{regime}}-{{round}}.log",
    benchmark:
        f"{CHAIN}/benchmarks/random_prune-{{regime}}-{{round}}.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=more(2000),
        runtime=more(10),
    params:
        config=lambda wildcards: canonical_json({"seed": int(wildcards.seed)}),
        stamp=stamp("random_prune"),
    message:
        "random pruning: {wildcards.pretraining}, as IMP {wildcards.regime} round {wildcards.round}, seed {wildcards.seed}"
    shell:
        "{STAGE}.random_prune --config {params.config:q} --like {input} --out {output} {RUN} 2> {log}"


rule export_ticket:
    input:
        mask=f"{CHAIN}/tickets/{{ticket}}.mask.safetensors",
        weights=f"{CHAIN}/dense.safetensors",
    output:
        f"{CHAIN}/exported/{{ticket}}.pth.tar",
    log:
        f"{CHAIN}/logs/export_ticket-{{ticket}}.log",
    benchmark:
        f"{CHAIN}/benchmarks/export_ticket-{{ticket}}.tsv"
    wildcard_constraints:
        ticket=r"[\w.-]+",
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=more(2000),
        runtime=more(10),
    params:
        config="{}",
        stamp=stamp("export_ticket"),
    message:
        "exporting {wildcards.ticket}"
    shell:
        "{STAGE}.export_ticket --config {params.config:q} --mask {input.mask} --weights {input.weights} --out {output} {RUN} 2> {log}"


rule import_ticket:
    input:
        file=dw_extra_file,
        weights=f"{CHAIN}/dense.safetensors",
    output:
        f"{CHAIN}/tickets/extra-{{name}}.mask.safetensors",
    log:
        f"{CHAIN}/logs/import_ticket-{{name}}.log",
    benchmark:
        f"{CHAIN}/benchmarks/import_ticket-{{name}}.tsv"
    conda:
        f"{ENVS}/vision.yaml"
    wildcard_constraints:
        name=r"[\w.]+",
    resources:
        mem_mb=more(2000),
        runtime=more(10),
    params:
        config="{}",
        stamp=stamp("import_ticket"),
    message:
        "importing the ticket {wildcards.name}"
    shell:
        "{STAGE}.import_ticket --config {params.config:q} --file {input.file} --weights {input.weights} --out {output} {RUN} 2> {log}"


TRANSFER = f"{CHAIN}/transfer/{{dataset}}/{{percent}}/{{ticket}}"


rule transfer_std:
    input:
        unpack(dw_transferred),
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
        gpu=1,
        mem_mb=more(4000),
        runtime=more(60),
    params:
        config=lambda w: canonical_json(grid.transfer_config(DW, w.dataset, w.percent, "std", int(w.run_seed))),
        stamp=stamp("transfer"),
    message:
        "standard transfer of {wildcards.pretraining}/{wildcards.ticket} to {wildcards.dataset} ({wildcards.percent} %)"
    shell:
        "{STAGE}.transfer --config {params.config:q} --init {input.init} --mask {input.mask} --best-sa {output.best_sa} --metrics {output.metrics} {RUN} 2> {log}"


rule transfer_adv:
    input:
        unpack(dw_transferred),
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
        gpu=1,
        mem_mb=more(4000),
        runtime=more(240),
    params:
        config=lambda w: canonical_json(grid.transfer_config(DW, w.dataset, w.percent, "adv", int(w.run_seed))),
        stamp=stamp("transfer"),
    message:
        "adversarial transfer of {wildcards.pretraining}/{wildcards.ticket} to {wildcards.dataset} ({wildcards.percent} %)"
    shell:
        "{STAGE}.transfer --config {params.config:q} --init {input.init} --mask {input.mask} --best-sa {output.best_sa} --best-ra {output.best_ra} --metrics {output.metrics} {RUN} 2> {log}"


rule evaluate:
    input:
        best_sa=f"{TRANSFER}/{{mode}}/s{{run_seed}}/best_sa.safetensors",
        best_ra=lambda w: [f"{TRANSFER}/adv/s{{run_seed}}/best_ra.safetensors".format(**w)] if w.mode == "adv" else [],
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
        gpu=1,
        mem_mb=more(4000),
        runtime=more(120),
    params:
        config=dw_seeded(grid.evaluate_config, "dataset", seed="run_seed"),
        stamp=stamp("evaluate"),
    message:
        "evaluating {wildcards.pretraining}/{wildcards.ticket} on {wildcards.dataset}, {wildcards.mode} transfer"
    shell:
        "{STAGE}.evaluate --config {params.config:q} --best-sa {input.best_sa} --best-ra {input.best_ra} --metrics {output} {RUN} 2> {log}"


rule double_win_table:
    input:
        evaluations=[f"{run.folder}/evaluation.json" for run in grid.grid_of(DW).runs()] if DW else [],
        tickets=sorted({run.mask for run in grid.grid_of(DW).runs() if run.mask}) if DW else [],
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
    conda:
        f"{ENVS}/tables.yaml"
    resources:
        mem_mb=more(2000),
        runtime=more(10),
    params:
        config=dw_config(grid.table_config),
        stamp=stamp("double_win_table", "tables"),
    message:
        "writing the double-win table"
    shell:
        "{STAGE}.double_win_table --config {params.config:q} --out {output.table} --metrics {output.metrics} {RUN} 2> {log}"


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
    log:
        "results/figures/double_win/logs/{dataset}-{percent}.log",
    benchmark:
        "results/figures/double_win/benchmarks/{dataset}-{percent}.tsv"
    conda:
        f"{ENVS}/tables.yaml"
    resources:
        mem_mb=more(2000),
        runtime=more(10),
    params:
        config=lambda w: canonical_json({"dataset": w.dataset, "fraction": float(w.percent) / 100}),
        stamp=stamp("double_win_plots", "tables"),
    message:
        "drawing {wildcards.dataset}, {wildcards.percent} %"
    shell:
        "{STAGE}.double_win_plots --config {params.config:q} --table {input} --svg {output.svg} --png {output.png} {RUN} 2> {log}"
