"""What all rules share: the checked configuration, what a job gets and asks for, and rules that pipelines take over.

A rule's params hold `config`, what its stage parses, as canonical JSON, and hashes over the code that the stage can reach and over
its environment file. Snakemake reruns a job when one changes. What does not change a result (data folder, workers, device, log
level) is in `run`, which it does not compare.
"""

import sys
from pathlib import Path

BASE = Path(str(workflow.current_basedir)).parents[1]  # also where another workflow takes winnow as a module
sys.path[:0] = [str(BASE / "src"), str(BASE / "workflow")]

from winnow import pipelines
from winnow.config.root import targets

from adapter import Adapter

ADAPTER = Adapter(workflow, config, BASE)
CONFIG, asked, signed = ADAPTER.config, ADAPTER.asked, ADAPTER.signed
VISION, TEXT, TABLES = (f"../../envs/{name}.yaml" for name in ("vision", "text", "tables"))
shell.prefix(ADAPTER.prefix)


wildcard_constraints:
    seed=r"\d+",
    percent=r"[\d.]+",
    round=r"\d+",
    target=r"[\d.]+",
    ticket=r"[\w.-]+",
    source=r"[\w.]+",
    pretraining=r"[\w.]+",
    dataset=r"[\w.]+",
    run_seed=r"\d+",
    regime=r"std|adv",
    mode=r"std|adv",
    experiment=r"[\w.]+",
    branch=r"[\w.]+",
    init=r"[\w.-]+",
    kind="search|inverted",


# Taken over by the pipelines with `use rule ... as ... with:`, which give inputs, outputs, log, resources and params.


rule prune:
    log:
        "results/prune.log",
    conda:
        VISION
    shell:
        "python -m winnow.stages.prune --config {params.config:q} --weights {input.weights:q} --mask {input.mask:q} --like {input.like:q} --out {output:q} {params.run} 2> {log:q}"


rule score:
    log:
        "results/score.log",
    conda:
        VISION
    shell:
        "python -m winnow.stages.prune --config {params.config:q} --weights {input.weights:q} --out {output:q} {params.run} 2> {log:q}"


rule bring_weights:
    log:
        "results/bring_weights.log",
    conda:
        VISION
    shell:
        "python -m winnow.stages.import_weights --config {params.config:q} --file {input:q} --out {output.weights:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"


rule train:
    log:
        "results/train.log",
    conda:
        VISION
    shell:
        "python -m winnow.stages.train --config {params.config:q} --init {input.init:q} --mask {input.mask:q} --out {output.weights:q} --metrics {output.metrics:q} {params.run} 2> {log:q}"
