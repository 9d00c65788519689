"""Transfer to a downstream task: head replaced, mask fixed, standard or adversarial training from the pre-trained
weights.

Keeps the checkpoints with the best validation SA and, under attack, the best validation RA (Double-win tickets, ICML
2022, section 3.2). Without --mask the dense model is transferred.
"""

from __future__ import annotations

import sys

from winnow.pipelines.double_win.jobs import Transfer
from winnow.stage import Job, Stage

stage = Stage(
    "transfer",
    Transfer,
    inputs={"init": "pre-trained dense weights", "mask?": "ticket; none for the dense model"},
    outputs={
        "best_sa": "weights of the best validation SA",
        "best_ra?": "of the best validation RA",
        "metrics": "every epoch",
    },
    trains=True,
)


@stage
def main(job: Job[Transfer]) -> None:
    """Replace the head, mask, train, write the best."""
    from winnow.rng import seed_of
    from winnow.ticket import Ticket
    from winnow.train.device import start
    from winnow.vision import models, sources
    from winnow.vision.training import place, train_classifier, training_loaders

    cfg = job.config
    device = start(cfg.compute, job.run.device, seed_of(cfg.seed, "head"))
    sets = sources.load(cfg.data, job.run.data_root, job.run.download)
    subset = sources.fraction(sets.train, cfg.fraction, cfg.seed)
    model, spec = models.load_pretrained(job["init"], sets.num_classes, cfg.normalisation, cfg.imagenet_stem)
    place(model, cfg.compute, device)
    ticket = Ticket.load(job["mask"]) if job.inputs["mask"] else None
    if ticket is not None and not cfg.imagenet_stem:
        ticket = Ticket({name: mask for name, mask in ticket.arrays.items() if name != models.STEM})
    train, val = training_loaders((subset, sets.val), cfg.data, cfg.train, cfg.seed, job.run)
    watch = ("val_sa", "val_ra") if cfg.attack else ("val_sa",)
    history, best = train_classifier(
        model, train, val,
        train=cfg.train, compute=cfg.compute, seed=cfg.seed, attack=cfg.attack, ticket=ticket, watch=watch, run=job.run,
        selection_attack=cfg.selection_attack,
    )  # fmt: skip
    for metric in watch:
        job.write_weights(metric.replace("val", "best"), best.states[metric], model=spec, selected_by=metric)
    job.write_metrics("metrics", {"epochs": history, "best": best.values, "train_images": len(subset)})


if __name__ == "__main__":
    sys.exit(stage.run())
