"""Fine-tune the pre-trained model on its task, plainly or against the FreeLB adversary; dense, without a mask.

Stage 1 of robust tickets (ACL 2022.acl-long.157, section 3.2) and, with `adversary`, the FreeLB baseline.
"""

from __future__ import annotations

import sys

from winnow.config.parts import Compute, Train
from winnow.config.text import FreeLB, TextData
from winnow.schema import key, part
from winnow.stage import Job, Stage


@part
class Config:
    """Configuration of finetune_text and retrain_ticket."""

    data: TextData = key("the task")
    train: Train = key("optimisation")
    adversary: FreeLB | None = key("adversarial training; null: plain", None)
    compute: Compute = key("numerical settings")
    seed: int = key("head, order, dropout, adversary", ge=0)


stage = Stage(
    "finetune_text",
    Config,
    inputs={"model": "pre-trained model folder, named by its model.safetensors"},
    outputs={"out": "the fine-tuned model folder, named by its model.safetensors", "metrics": "accuracy of every epoch"},
    trains=True,
)


@stage
def main(job: Job[Config]) -> None:
    """Load, train, write."""
    run(job)


def run(job: Job[Config]) -> None:
    """Fine-tune with the job's ticket, if it has one."""
    from winnow.rng import seed_of
    from winnow.text import models
    from winnow.text.training import finetune, load
    from winnow.ticket import Ticket
    from winnow.train.device import start

    cfg = job.config
    start(cfg.compute, job.run.device, seed_of(cfg.seed, "start"))
    model, tokenizer, data = load(job["model"], cfg.data, job.run.data_root, job.run.download)
    models.reset_head(model, cfg.seed)
    ticket = Ticket.load(job["mask"]) if job.inputs.get("mask") else None
    history = finetune(
        model, data, train=cfg.train, compute=cfg.compute, seed=cfg.seed, adversary=cfg.adversary, ticket=ticket, run=job.run
    )
    if not job.writes:
        return
    models.save_classifier(job["out"], model, tokenizer, job.provenance(job["out"]))
    job.write_metrics("metrics", {"epochs": history, "remaining_percent": ticket.remaining_percent if ticket else 100.0})


if __name__ == "__main__":
    sys.exit(stage.run())
