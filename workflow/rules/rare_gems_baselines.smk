"""Baselines of the rare-gems pipeline: masks at initialisation, dense training, and IMP with rewinding.

REQUIRED INPUTS: the initial weights of rare_gems.smk
OUTPUTS: tickets and trained weights below results/rare_gems/<experiment>/<branch>/s<seed>/
"""


rule gem_smart_ratio:
    input:
        lambda w: gem_inputs.init(RG, w),
    output:
        f"{GEMS}/smart_ratio/{{target}}.mask.safetensors",
    log:
        f"{GEMS}/logs/smart_ratio-{{target}}.log",
    benchmark:
        f"{GEMS}/benchmarks/smart_ratio-{{target}}.tsv"
    localrule: True
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=memory("gem_smart_ratio"),
        runtime=runtime("gem_smart_ratio"),
    params:
        config=part_of(RG, gem_grid.ticket_config, "experiment", "branch", "target", "seed"),
        stamp=stamp("smart_ratio"),
        run=untracked,
    message:
        "smart ratio: {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.smart_ratio --config {params.config:q} --weights {input:q} --out {output:q} {params.run} 2> {log:q}"


rule gem_random:
    input:
        lambda w: gem_inputs.init(RG, w),
    output:
        f"{GEMS}/random/{{target}}.mask.safetensors",
    log:
        f"{GEMS}/logs/random-{{target}}.log",
    benchmark:
        f"{GEMS}/benchmarks/random-{{target}}.tsv"
    localrule: True
    conda:
        f"{ENVS}/vision.yaml"
    resources:
        mem_mb=memory("gem_random"),
        runtime=runtime("gem_random"),
    params:
        config=part_of(RG, gem_grid.ticket_config, "experiment", "branch", "target", "seed"),
        stamp=stamp("random_ticket"),
        run=untracked,
    message:
        "random ticket: {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.random_ticket --config {params.config:q} --weights {input:q} --out {output:q} {params.run} 2> {log:q}"


rule gem_snip:
    input:
        lambda w: gem_inputs.init(RG, w),
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
        **GPU_MODEL,
        nodes=1,
        gpu=1,
        mem_mb=memory("gem_snip", CONFIG.workers),
        runtime=runtime("gem_snip"),
    params:
        config=part_of(RG, gem_grid.ticket_config, "experiment", "branch", "target", "seed"),
        stamp=stamp("snip"),
        run=untracked,
    message:
        "snip: {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.snip --config {params.config:q} --weights {input:q} --out {output:q} {params.run} 2> {log:q}"


rule gem_grasp:
    input:
        lambda w: gem_inputs.init(RG, w),
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
        **GPU_MODEL,
        nodes=1,
        gpu=1,
        mem_mb=memory("gem_grasp", CONFIG.workers),
        runtime=runtime("gem_grasp"),
    params:
        config=part_of(RG, gem_grid.ticket_config, "experiment", "branch", "target", "seed"),
        stamp=stamp("grasp"),
        run=untracked,
    message:
        "grasp: {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.grasp --config {params.config:q} --weights {input:q} --out {output:q} {params.run} 2> {log:q}"


rule gem_synflow:
    input:
        lambda w: gem_inputs.init(RG, w),
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
        **GPU_MODEL,
        nodes=1,
        gpu=1,
        mem_mb=memory("gem_synflow", CONFIG.workers),
        runtime=runtime("gem_synflow"),
    params:
        config=part_of(RG, gem_grid.ticket_config, "experiment", "branch", "target", "seed"),
        stamp=stamp("synflow"),
        run=untracked,
    message:
        "synflow: {wildcards.experiment}/{wildcards.branch} at {wildcards.target} %, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.synflow --config {params.config:q} --weights {input:q} --out {output:q} {params.run} 2> {log:q}"


weight_training_config = part_of(RG, gem_grid.dense_config, "experiment", "branch", "seed")


rule weight_training:
    input:
        lambda w: gem_inputs.init(RG, w),
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
        **GPU_MODEL,
        nodes=1,
        gpu=CONFIG.gpus,
        mem_mb=memory("weight_training", CONFIG.workers),
        runtime=runtime("weight_training", weight_training_config),
    params:
        config=weight_training_config,
        stamp=stamp("weight_training"),
        run=untracked,
    message:
        "dense training: {wildcards.experiment}/{wildcards.branch}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.weight_training --config {params.config:q} --init {input:q} --out {output.weights:q} --rewind {output.rewind:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


imp_rewind_config = lambda w: canonical_json(gem_grid.imp_config(RG, w.experiment, w.branch, int(w.round), int(w.seed)))


rule imp_rewind:
    input:
        unpack(lambda w: gem_inputs.last_round(RG, w)),
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
        **GPU_MODEL,
        nodes=1,
        gpu=CONFIG.gpus,
        mem_mb=memory("imp_rewind", CONFIG.workers),
        runtime=runtime("imp_rewind", imp_rewind_config),
    params:
        config=imp_rewind_config,
        stamp=stamp("imp_rewind"),
        run=untracked,
    message:
        "IMP round {wildcards.round}: {wildcards.experiment}/{wildcards.branch}, seed {wildcards.seed}"
    shell:
        "python -m winnow.stages.imp_rewind --config {params.config:q} --trained {input.trained:q} --mask {input.mask:q} --rewind {input.rewind:q} --ticket {output.ticket:q} --out {output.weights:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"
