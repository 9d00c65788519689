"""Which jobs of this pipeline run for one ticket one after the other, so that they may share a SLURM job."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from winnow.pipelines.packs import Job, job
from winnow.pipelines.robust_bert.config import RobustBert
from winnow.pipelines.robust_bert.grid import grid_of, kept_epochs

RULES = ("finetune_text", "attack_text")


def members(section: RobustBert) -> Iterator[tuple[str, list[Job]]]:
    """A network's training and its attacks."""
    networks: dict[tuple[str, str, int, str], list[str]] = defaultdict(list)
    for run in grid_of(section).runs():
        networks[run.model, run.task, run.seed, run.network].append(run.attacker)
    apart = kept_epochs(section)  # then one retraining makes several networks
    for (model, task, seed, network), attackers in networks.items():
        names = {"model": model, "task": task, "seed": seed, "network": network}
        training = [] if apart and "-" in network else [job("finetune_text", **names)]
        jobs = [*training, *(job("attack_text", attacker=a, **names) for a in attackers)]
        yield f"text_{model}_{task}_{seed}_{network}", jobs
