"""Train from given weights on their own task, dense or under a ticket: rounds of IMP, fine-tuning of tickets, the dense
network.

With `measure`, test accuracy is taken before and after, and the weights with the best held-out accuracy are kept (Rare
Gems, section 4): gems, random tickets and all baselines go through here. With --rewind the weights after
`rewind_iteration` optimisation steps are kept as well: the point that IMP rewinds to (Frankle et al., ICML 2020).
"""

from __future__ import annotations

import sys

from winnow.config.jobs import TrainWeights
from winnow.prune.methods import module_name
from winnow.stage import Job, Stage

stage = Stage(
    "train",
    TrainWeights,
    inputs={"init": "weights to start from", "mask?": "ticket; none: the dense network"},
    outputs={
        "out": "trained weights, zero wherever the mask is",
        "rewind?": "weights at rewind_iteration",
        "metrics": "accuracy of every epoch, and before and after",
    },
    trains=True,
    also=lambda cfg: [module_name(cfg.moving.method)] if cfg.moving else [],
)


@stage
def main(job: Job[TrainWeights]) -> None:
    """Mask, train, write."""
    from winnow.gems.finetune import Task, early_weights, finetune
    from winnow.ticket import Ticket
    from winnow.weights import record_of

    cfg = job.config
    ticket = Ticket.load(job["mask"]) if job.inputs["mask"] else None
    task = Task(cfg.data, cfg.train, cfg.compute, cfg.seed, cfg.attack, job.run)
    model, spec = task.model(job["init"])
    names = record_of(job["init"])["prunable"]
    found = finetune(model, ticket, task, keep=cfg.keep, measure=cfg.measure, moving=cfg.moving)
    job.write_weights("out", model.state_dict(), model=spec, prunable=names)
    if job.outputs["rewind"]:
        early = early_weights(task.model(job["init"])[0], cfg.rewind_iteration, task)
        job.write_weights("rewind", early, model=spec, prunable=names, iteration=cfg.rewind_iteration)
    job.write_metrics("metrics", {**found, "remaining_percent": ticket.remaining_percent if ticket else 100.0})


if __name__ == "__main__":
    sys.exit(stage.run())
