"""Train the dense network on the source task: standard, fast adversarial (one FGSM step) or adversarial (PGD).

The pre-training whose tickets the double-win pipeline locates (Double-win tickets, ICML 2022, section 3.1).
"""

from __future__ import annotations

import sys

from winnow.pipelines.double_win.jobs import Pretrain
from winnow.rng import seed_of
from winnow.stage import Job, Stage

stage = Stage(
    "pretrain",
    Pretrain,
    inputs={},
    outputs={"out": "dense weights", "metrics": "validation accuracy of every epoch and test accuracy"},
    trains=True,
)


@stage
def main(job: Job[Pretrain]) -> None:
    """Build, train, measure, write."""
    from winnow.train.device import start
    from winnow.vision import models, sources
    from winnow.vision.evaluate import accuracy
    from winnow.vision.training import place, train_classifier, training_loaders

    cfg = job.config
    device = start(cfg.compute, job.run.device, seed_of(cfg.seed, "init"))
    sets = sources.load(cfg.data, job.run.data_root, job.run.download)
    model = place(models.build(cfg.model, sets.num_classes), cfg.compute, device)
    train, val, test = training_loaders((sets.train, sets.val, sets.test), cfg.data, cfg.train, cfg.seed, job.run)
    history, _ = train_classifier(
        model, train, val, train=cfg.train, compute=cfg.compute, seed=cfg.seed, attack=cfg.attack, run=job.run
    )
    spec = models.spec(cfg.model, sets.num_classes)
    job.write_weights("out", model.state_dict(), model=spec, prunable=models.prunable(model, cfg.model.layers))
    job.write_metrics("metrics", {"epochs": history, "test_sa": accuracy(model, test, cfg.compute)})


if __name__ == "__main__":
    sys.exit(stage.run())
