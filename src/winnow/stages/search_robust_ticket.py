"""Search a robust ticket: learn a hard-concrete score for every masked weight of the frozen fine-tuned model.

Robust tickets (ACL 2022.acl-long.157, section 3.2): FreeLB losses plus a ramped L0 term, AdamW on the scores alone. The
scores after each epoch of `keep_epochs` are artifacts; every sparsity is drawn from them.
"""

from __future__ import annotations

import sys

from winnow.pipelines.robust_bert.jobs import SearchRobustTicket
from winnow.stage import Job, Stage

stage = Stage(
    "search_robust_ticket",
    SearchRobustTicket,
    inputs={"model": "fine-tuned model folder, named by its model.safetensors"},
    outputs={"scores*": "one scores file for each of keep_epochs, in that order", "metrics": "accuracy of every epoch"},
    trains=True,
)


@stage
def main(job: Job[SearchRobustTicket]) -> None:
    """Freeze, search, write."""
    from winnow.errors import WinnowError
    from winnow.rng import seed_of
    from winnow.text.hard_concrete import write_scores
    from winnow.text.models import prunable
    from winnow.text.search import search
    from winnow.text.training import load
    from winnow.train.device import start

    cfg, files = job.config, job.paths("scores")
    if len(files) != len(cfg.keep_epochs):
        raise WinnowError(f"--scores: {len(files)} files for {len(cfg.keep_epochs)} kept epochs; name one for each")
    start(cfg.compute, job.run.device, seed_of(cfg.seed, "start"))
    model, _, data = load(job["model"], cfg.data, job.run.data_root, job.run.download)
    shapes = {name: list(model.get_parameter(name).shape) for name in prunable(model)}
    history, kept = search(
        model, list(shapes), data, train=cfg.train, masks=cfg.masks, adversary=cfg.adversary,
        keep_epochs=cfg.keep_epochs, compute=cfg.compute, seed=cfg.seed, frozen=cfg.frozen, run=job.run,
    )  # fmt: skip
    if not job.writes:
        return
    for epoch, file in zip(cfg.keep_epochs, files, strict=True):
        write_scores(
            file, kept[epoch], {"shapes": shapes, "search_epoch": epoch, "seed": cfg.seed, **job.provenance(file)}
        )
    job.write_metrics("metrics", {"epochs": history})


if __name__ == "__main__":
    sys.exit(stage.run())
