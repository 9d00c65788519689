"""Sanity checks of a gem: what it is worth with other weights, shuffled within its layers, or from an inverted search.

Each variant is fine-tuned exactly as the gem itself; a gem is one only when it clearly beats all of them (Rare Gems,
section 5; the checks are those of Frankle et al., ICLR 2021). The inverted ticket is --inverted, of an IMP chain that
removes the largest weights, or drawn from it, where it is the --order of an inverted gem_search.
"""

from __future__ import annotations

import sys

from winnow.pipelines.rare_gems.jobs import GemSanity
from winnow.stage import Job, Stage

stage = Stage(
    "gem_sanity",
    GemSanity,
    inputs={
        "init": "the gem's weights",
        "mask": "the gem",
        "inverted?": "inverted ticket, or prune order of an inverted search",
    },
    outputs={"metrics": "test accuracy before and after for each check"},
)


@stage
def main(job: Job[GemSanity]) -> None:
    """Make each variant, fine-tune it, write."""
    from winnow.artifacts import read_metadata
    from winnow.gems.finetune import Task, finetune
    from winnow.gems.inits import initialise
    from winnow.gems.order import draw, read_order
    from winnow.prune import random_like
    from winnow.ticket import Ticket

    cfg, gem = job.config, Ticket.load(job["mask"])
    task = Task(cfg.data, cfg.train, cfg.compute, cfg.seed, cfg.attack, job.run)
    tickets: dict[str, Ticket] = {
        check: gem if check == "reinit" else Ticket(random_like.masks(gem, cfg.seed, "shuffle")) for check in cfg.checks
    }
    if job.inputs["inverted"]:
        if read_metadata(job["inverted"]).get("kind") == "ticket":
            tickets["invert"] = Ticket.load(job["inverted"])
        else:
            levels, scores = read_order(job["inverted"])
            tickets["invert"] = Ticket(draw(levels, scores, cfg.target_sparsity / 100.0))
    found = {}
    for check, ticket in tickets.items():
        model, _ = task.model(job["init"])
        if check == "reinit":
            initialise(model, list(gem.arrays), "kaiming_normal", 1.0, cfg.seed, "reinit")
        with job.run.part(check):
            found[check] = {
                **finetune(model, ticket, task, keep=cfg.keep),
                "remaining_percent": ticket.remaining_percent,
            }
    job.write_metrics("metrics", {"checks": found})


if __name__ == "__main__":
    sys.exit(stage.run())
