"""The SNIP ticket: the weights at initialisation with the largest connection sensitivity |dL/dw * w| (Lee et al., ICLR 2019).

Scores come from the first images of the shuffled training split; the largest of all layers together are kept.
"""

from __future__ import annotations

import sys

from winnow.config.parts import Compute, Data
from winnow.schema import key, part
from winnow.stage import Job, Stage


@part
class Config:
    """Configuration of snip."""

    target_sparsity: float = key("percentage of the weights that shall REMAIN", gt=0, lt=100)
    images: int = key("training images to look at", 128, ge=1)
    data: Data = key("the task")
    compute: Compute = key("numerical settings")
    seed: int = key("chooses the images", ge=0)


stage = Stage("snip", Config, inputs={"weights": "initial weights (gem_init)"}, outputs={"out": "the ticket"})


@stage
def main(job: Job[Config]) -> None:
    """Score, keep, write."""
    from winnow.gems.scores import scorable
    from winnow.gems.sensitivity import snip_scores
    from winnow.prune import keep_largest
    from winnow.ticket import Ticket
    from winnow.vision import models, sources
    from winnow.vision.batches import Loader
    from winnow.vision.training import place, start

    cfg = job.config
    device = start(cfg.compute, job, cfg.seed)
    sets = sources.load(cfg.data, job.data_root, job.download)
    model = place(models.load_pretrained(job["weights"])[0], cfg.compute, device)
    names = scorable(model)
    x, y = next(iter(Loader(sets.train, cfg.data, cfg.images, device, cfg.seed, job.workers).epoch(0)))
    scores = {name: score.cpu().numpy() for name, score in snip_scores(model, names, x, y).items()}
    count = round(sum(s.size for s in scores.values()) * cfg.target_sparsity / 100.0)
    job.write_ticket("out", Ticket(keep_largest(scores, count)), method="snip", seed=cfg.seed)


if __name__ == "__main__":
    sys.exit(stage.run())
