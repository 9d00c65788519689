"""Fine-tune the pre-trained model on its task, plainly or against the FreeLB adversary; dense, without a mask.

Stage 1 of robust tickets (ACL 2022.acl-long.157, section 3.2) and, with `adversary`, the FreeLB baseline.
"""

from __future__ import annotations

import sys

from winnow.pipelines.robust_bert.jobs import FinetuneText
from winnow.stage import Job, Stage

stage = Stage(
    "finetune_text",
    FinetuneText,
    inputs={
        "model": "pre-trained model folder, named by its model.safetensors",
        "mask?": "ticket; none: the dense network",
    },
    outputs={
        "out": "the fine-tuned model folder, named by its model.safetensors",
        "metrics": "accuracy of every epoch",
    },
    trains=True,
)


@stage
def main(job: Job[FinetuneText]) -> None:
    """Load, train, write."""
    from winnow.rng import seed_of
    from winnow.text import models
    from winnow.text.training import finetune, load
    from winnow.ticket import Ticket
    from winnow.train.device import start

    cfg = job.config
    start(cfg.compute, job.run.device, seed_of(cfg.seed, "start"))
    model, tokenizer, data = load(job["model"], cfg.data, job.run.data_root, job.run.download)
    models.reset_head(model, cfg.seed)
    ticket = Ticket.load(job["mask"]) if job.inputs["mask"] else None
    history = finetune(
        model,
        data,
        train=cfg.train,
        compute=cfg.compute,
        seed=cfg.seed,
        adversary=cfg.adversary,
        ticket=ticket,
        run=job.run,
    )
    if not job.writes:
        return
    models.save_classifier(job["out"], model, tokenizer, job.provenance(job["out"]))
    job.write_metrics(
        "metrics", {"epochs": history, "remaining_percent": ticket.remaining_percent if ticket else 100.0}
    )


if __name__ == "__main__":
    sys.exit(stage.run())
