"""Train the dense network from its initial weights: what the tickets are compared with (`wt`), and round 0 of IMP.

With --rewind the weights after `rewind_iteration` optimisation steps are kept as well: the point that IMP rewinds to.
"""

from __future__ import annotations

import sys

from winnow.config.parts import Attack, Compute, Data, Train
from winnow.schema import key, part
from winnow.stage import Job, Stage


@part
class Config:
    """Configuration of weight_training."""

    data: Data = key("the task")
    train: Train = key("optimisation of the weights")
    attack: Attack | None = key("adversarial training; null: clean images", None)
    rewind_iteration: int = key("optimisation steps after which --rewind is taken; 0: the initial weights", 0, ge=0)
    compute: Compute = key("numerical settings")
    seed: int = key("order, augmentation, attack starts", ge=0)


stage = Stage(
    "weight_training",
    Config,
    inputs={"init": "initial weights"},
    outputs={
        "out": "trained weights (held-out best)",
        "rewind?": "weights at rewind_iteration",
        "metrics": "test accuracy before and after",
    },
    trains=True,
)


@stage
def main(job: Job[Config]) -> None:
    """Measure, train, measure, write."""
    from winnow.gems.finetune import Task, early_weights, finetune
    from winnow.gems.scores import hard_prunable

    cfg = job.config
    task = Task(job, cfg.data, cfg.train, cfg.compute, cfg.seed, cfg.attack)
    model, spec = task.model(job["init"])
    found = finetune(model, None, task)
    job.write_weights("out", model.state_dict(), model=spec, prunable=hard_prunable(model))
    if job.outputs["rewind"]:
        early = early_weights(task.model(job["init"])[0], cfg.rewind_iteration, task)
        job.write_weights("rewind", early, model=spec, prunable=hard_prunable(model), iteration=cfg.rewind_iteration)
    job.write_metrics("metrics", {**found, "remaining_percent": 100.0})


if __name__ == "__main__":
    sys.exit(stage.run())
