"""Train one IMP round: rewound to the dense init, the round's mask fixed, standard or adversarial.

Writes the weights that the next round ranks (Double-win tickets, ICML 2022, section 3.1).
"""

from __future__ import annotations

import sys

from winnow.config.parts import Attack, Compute, Data, Train
from winnow.schema import key, part
from winnow.stage import Job, Stage


@part
class Config:
    """Configuration of imp_train."""

    data: Data = key("source task")
    train: Train = key("optimisation; the optimiser is rebuilt every round")
    attack: Attack | None = key("adversary of adversarial IMP; null: standard IMP", None)
    compute: Compute = key("numerical settings")
    seed: int = key("order, augmentation, attack starts", ge=0)


stage = Stage(
    "imp_train",
    Config,
    inputs={"init": "dense weights to rewind to", "mask": "ticket of this round"},
    outputs={"out": "trained weights, zero wherever the mask is", "metrics": "validation accuracy of every epoch"},
    trains=True,
)


@stage
def main(job: Job[Config]) -> None:
    """Rewind, mask, train, write."""
    from winnow.errors import WinnowError
    from winnow.ticket import Ticket
    from winnow.train.device import start
    from winnow.vision import models, sources
    from winnow.vision.batches import Loader
    from winnow.vision.training import place, train_classifier

    cfg, ticket = job.config, Ticket.load(job["mask"])
    device = start(cfg.compute, job.run.device, cfg.seed)
    sets = sources.load(cfg.data, job.run.data_root, job.run.download)
    model, spec = models.load_pretrained(job["init"])
    if spec["num_classes"] != sets.num_classes:
        raise WinnowError(f"{job['init']}: has {spec['num_classes']} classes, the source task {sets.num_classes}")
    place(model, cfg.compute, device)
    train, val = (Loader(s, cfg.data, cfg.train.batch_size, device, cfg.seed, job.run.workers) for s in (sets.train, sets.val))
    history, _ = train_classifier(
        model, train, val,
        train=cfg.train, compute=cfg.compute, seed=cfg.seed, attack=cfg.attack, ticket=ticket, run=job.run,
    )  # fmt: skip
    job.write_weights("out", model.state_dict(), model=spec, prunable=models.prunable(model))
    job.write_metrics("metrics", {"epochs": history, "remaining_percent": ticket.remaining_percent})


if __name__ == "__main__":
    sys.exit(stage.run())
