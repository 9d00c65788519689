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
        "kept*": "the same after each of keep_epochs, in that order",
        "metrics": "accuracy of every epoch",
    },
    trains=True,
)


@stage
def main(job: Job[FinetuneText]) -> None:
    """Load, train, write."""
    from winnow.errors import WinnowError
    from winnow.rng import seed_of
    from winnow.text import models
    from winnow.text.training import finetune, load
    from winnow.ticket import Ticket
    from winnow.train.device import start

    cfg, files = job.config, job.paths("kept")
    if len(files) != len(cfg.keep_epochs):
        raise WinnowError(f"--kept: {len(files)} folders for {len(cfg.keep_epochs)} kept epochs; name one for each")
    start(cfg.compute, job.run.device, seed_of(cfg.seed, "start"))
    model, tokenizer, data = load(job["model"], cfg.data, job.run.data_root, job.run.download)
    models.reset_head(model, cfg.seed)
    ticket = Ticket.load(job["mask"]) if job.inputs["mask"] else None
    history, kept = finetune(
        model,
        data,
        train=cfg.train,
        compute=cfg.compute,
        seed=cfg.seed,
        adversary=cfg.adversary,
        ticket=ticket,
        keep_epochs=cfg.keep_epochs,
        run=job.run,
    )
    if not job.writes:
        return
    models.save_classifier(job["out"], model, tokenizer, job.provenance(job["out"]))
    for epoch, file in zip(cfg.keep_epochs, files, strict=True):
        model.load_state_dict(kept[epoch])
        models.save_classifier(file, model, tokenizer, job.provenance(file))
    job.write_metrics(
        "metrics", {"epochs": history, "remaining_percent": ticket.remaining_percent if ticket else 100.0}
    )


if __name__ == "__main__":
    sys.exit(stage.run())
