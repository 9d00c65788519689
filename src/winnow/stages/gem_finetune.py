"""Accuracy of a ticket before training, and after fine-tuning its weights under the mask (Rare Gems, section 4).

Gems, random tickets and all other baselines go through here, so both figures mean the same for all.
"""

from __future__ import annotations

import sys

from winnow.config.parts import Attack, Compute, Data, Train
from winnow.schema import key, part
from winnow.stage import Job, Stage


@part
class Config:
    """Configuration of gem_finetune."""

    data: Data = key("the task")
    train: Train = key("optimisation of the weights")
    attack: Attack | None = key("adversarial fine-tuning, and robust accuracies; null: clean images", None)
    compute: Compute = key("numerical settings")
    seed: int = key("order, augmentation, attack starts", ge=0)


stage = Stage(
    "gem_finetune",
    Config,
    inputs={"init": "the weights that the ticket was found for", "mask": "ticket"},
    outputs={"out": "fine-tuned weights, zero wherever the mask is", "metrics": "test accuracy before and after"},
    trains=True,
)


@stage
def main(job: Job[Config]) -> None:
    """Measure, train, measure, write."""
    from winnow.gems.finetune import Task, finetune
    from winnow.gems.scores import hard_prunable
    from winnow.ticket import Ticket

    cfg, ticket = job.config, Ticket.load(job["mask"])
    task = Task(job, cfg.data, cfg.train, cfg.compute, cfg.seed, cfg.attack)
    model, spec = task.model(job["init"])
    found = finetune(model, ticket, task)
    job.write_weights("out", model.state_dict(), model=spec, prunable=hard_prunable(model))
    job.write_metrics("metrics", {**found, "remaining_percent": ticket.remaining_percent})


if __name__ == "__main__":
    sys.exit(stage.run())
