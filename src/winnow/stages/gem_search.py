"""Search for a gem among frozen weights: train scores, round them in the forward pass, prune the smallest for good.

Gem-Miner and edge-popup in all their forms (Rare Gems, NeurIPS 2022, section 4). --levels holds a ticket for every hard
prune and --order the order in which weights went, so one run serves all sparsities down to its target (gem_ticket).
"""

from __future__ import annotations

import sys

from winnow.pipelines.rare_gems.jobs import GemSearch
from winnow.stage import Job, Stage

stage = Stage(
    "gem_search",
    GemSearch,
    inputs={"init": "weights to search among (gem_init)"},
    outputs={
        "out": "the ticket at the target",
        "order": "the order in which weights were given up",
        "levels?": "folder of one ticket a hard prune",
        "metrics": "remaining percentage and held-out accuracy of every epoch",
    },
    trains=True,
)


@stage
def main(job: Job[GemSearch]) -> None:
    """Search, write every level."""
    from winnow.artifacts import write_tensors
    from winnow.gems.finetune import Task
    from winnow.gems.order import KIND, level_masks
    from winnow.gems.search import search
    from winnow.ticket import Ticket

    cfg = job.config
    task = Task(cfg.data, cfg.train, cfg.compute, cfg.seed, cfg.attack, job.run)
    model, _ = task.model(job["init"])
    gem, history = search(
        model, task.train_loader,
        config=cfg.search, train=cfg.train, compute=cfg.compute, seed=cfg.seed, attack=cfg.attack,
        evaluate=lambda: task.held_out(model), run=job.run,
    )  # fmt: skip
    if not job.writes:
        return
    about = {"method": cfg.search.algo, "seed": cfg.seed, "collapsed": gem.collapsed}
    order = gem.order()
    if job.outputs["levels"]:
        levels = {n.removesuffix(".level"): v for n, v in order.items() if n.endswith(".level")}
        for k in range(1, gem.prunes + 1):
            path = job["levels"] / f"level{k:03d}.mask.safetensors"
            Ticket(level_masks(levels, k)).save(path, level=k, **about, **job.provenance(path))
    write_tensors(job["order"], order, {"kind": KIND, **about, **job.provenance(job["order"])})
    ticket = Ticket(gem.ticket())
    job.write_ticket("out", ticket, level=gem.prunes, **about)
    found = {
        "epochs": history,
        "remaining_percent": ticket.remaining_percent,
        "prunes": gem.prunes,
        "collapsed": gem.collapsed,
    }
    job.write_metrics("metrics", found)


if __name__ == "__main__":
    sys.exit(stage.run())
