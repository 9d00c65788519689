"""Measure transferred models on the test split: SA, RA by PGD with restarts, l2 PGD, CIFAR-10-C.

Models trained adversarially get every configured attack; others SA and RA. Accuracies are percentages of the test
split. A killed run goes on after the last finished batch. AutoAttack is a stage of its own.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from winnow.pipelines.double_win.jobs import Evaluate
from winnow.stage import Job, Stage

stage = Stage(
    "evaluate",
    Evaluate,
    inputs={"best_sa": "weights chosen by validation SA", "best_ra?": "weights chosen by validation RA"},
    outputs={"metrics": "accuracies by checkpoint"},
)


@stage
def main(job: Job[Evaluate]) -> None:
    """Load each checkpoint, measure, write."""
    from winnow.train.device import start
    from winnow.vision import evaluate as ev
    from winnow.vision import models, sources
    from winnow.vision.batches import Loader
    from winnow.vision.training import place

    cfg, wanted = job.config, job.config.evaluation
    device = start(cfg.compute, job.run.device, cfg.seed)
    test = sources.load(cfg.data, job.run.data_root, job.run.download).test
    loader = Loader(test, cfg.data, wanted.batch_size, device, cfg.seed, job.run.workers)
    found: dict[str, Any] = {"test_images": len(test)}
    with ev.tallies(job.run) as tally:
        for name in ("best_sa", "best_ra"):
            if not job.inputs[name]:
                continue
            model, _ = models.load_pretrained(job[name])
            place(model, cfg.compute, device)
            part = functools.partial(tally, name)
            result: dict[str, Any] = {"sa": ev.accuracy(model, loader, cfg.compute, tally=part("sa"))}
            result["ra"] = ev.robust_accuracy(model, loader, wanted.attack, cfg.compute, cfg.seed, part("ra"))
            if wanted.corruptions:
                folder = job.run.data_root / wanted.corruptions
                result["corruptions"] = ev.corruption_accuracy(
                    model, folder, cfg.data, cfg.compute, device, wanted.batch_size, part
                )
            if name == "best_ra" and wanted.l2_attack:
                result["l2_ra"] = ev.robust_accuracy(
                    model, loader, wanted.l2_attack, cfg.compute, cfg.seed, part("l2_ra")
                )
            found[name] = result
    job.write_metrics("metrics", found)


if __name__ == "__main__":
    sys.exit(stage.run())
