"""AutoAttack (Croce and Hein, ICML 2020) on an adversarially trained network: accuracy under its attacks, in percent.

On the whole test split or a stratified part of it. A killed run goes on after the last finished batch.
"""

from __future__ import annotations

import sys

from winnow.pipelines.double_win.jobs import AutoAttacked
from winnow.stage import Job, Stage

stage = Stage(
    "autoattack",
    AutoAttacked,
    inputs={"weights": "the network to attack"},
    outputs={"metrics": "accuracy"},
)


@stage
def main(job: Job[AutoAttacked]) -> None:
    """Load, attack, write."""
    from winnow.train.device import start
    from winnow.vision import evaluate as ev
    from winnow.vision import models, sources
    from winnow.vision.batches import Loader
    from winnow.vision.training import place

    cfg = job.config
    device = start(cfg.compute, job.run.device, cfg.seed)
    test = sources.load(cfg.data, job.run.data_root, job.run.download).test
    some = sources.subset(test, cfg.autoattack.images, cfg.data.split_seed)
    loader = Loader(some, cfg.data, cfg.batch_size, device, cfg.seed, job.run.workers)
    model, spec = models.load_pretrained(job["weights"])
    place(model, cfg.compute, device)
    with ev.tallies(job.run) as tally:
        found = ev.autoattack_accuracy(model, loader, cfg.autoattack, spec["num_classes"], cfg.seed, tally("aa"))
    job.write_metrics("metrics", {"aa": found, "images": len(some)})


if __name__ == "__main__":
    sys.exit(stage.run())
