"""One round of IMP with rewinding: prune what the last round trained, go back, train again under the mask.

warm and cold: the weights of --rewind (an early iteration, or iteration 0; Frankle et al., ICML 2020); renda: the weights
stay as the last round left them and only the learning rate starts over (Renda et al., ICLR 2020). Rounds are a chain of
artifacts: round k takes the weights and the ticket of round k-1.
"""

from __future__ import annotations

import sys
from typing import Literal

from winnow.config.parts import Attack, Compute, Data, Train
from winnow.schema import key, part
from winnow.stage import Job, Stage


@part
class Config:
    """Configuration of imp_rewind."""

    rewind: Literal["warm", "cold", "renda"] = key("what a round starts from")
    remaining_percent: float = key("percentage of all prunable weights that REMAIN after this round", gt=0, lt=100)
    data: Data = key("the task")
    train: Train = key("optimisation of a round")
    attack: Attack | None = key("adversarial training; null: clean images", None)
    compute: Compute = key("numerical settings")
    seed: int = key("order, augmentation, attack starts", ge=0)


stage = Stage(
    "imp_rewind",
    Config,
    inputs={
        "trained": "what the last round trained",
        "mask?": "its ticket",
        "rewind?": "weights to go back to (not for renda)",
    },
    outputs={"ticket": "ticket of this round", "out": "trained weights", "metrics": "test accuracy before and after"},
    trains=True,
)


@stage
def main(job: Job[Config]) -> None:
    """Prune, rewind, train, write."""
    from winnow.errors import WinnowError
    from winnow.gems.finetune import Task, finetune
    from winnow.prune import magnitude
    from winnow.ticket import Ticket
    from winnow.weights import prunable_arrays

    cfg = job.config
    if (cfg.rewind == "renda") == bool(job.inputs["rewind"]):
        raise WinnowError(f"config.rewind: {cfg.rewind} {'takes no' if cfg.rewind == 'renda' else 'needs'} --rewind")
    last = Ticket.load(job["mask"]) if job.inputs["mask"] else None
    weights = prunable_arrays(job["trained"])
    if last is not None:
        last.check_fits({k: v.shape for k, v in weights.items()}, str(job["trained"]))
    count = round(sum(w.size for w in weights.values()) * cfg.remaining_percent / 100.0)
    ticket = Ticket(magnitude.masks(weights, count, last.arrays if last else None))
    task = Task(job, cfg.data, cfg.train, cfg.compute, cfg.seed, cfg.attack)
    model, spec = task.model(job["trained" if cfg.rewind == "renda" else "rewind"])
    found = finetune(model, ticket, task)
    job.write_ticket("ticket", ticket, method="imp", rewind=cfg.rewind, seed=cfg.seed)
    job.write_weights("out", model.state_dict(), model=spec, prunable=list(weights))
    job.write_metrics("metrics", {**found, "remaining_percent": ticket.remaining_percent})


if __name__ == "__main__":
    sys.exit(stage.run())
