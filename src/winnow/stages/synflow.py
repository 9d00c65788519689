"""The SynFlow ticket: iterated synaptic flow, found without data (Tanaka et al., NeurIPS 2020).

Only the size of the task's images is read; the largest scores of all layers together are kept, in 100 rounds.
"""

from __future__ import annotations

import sys

from winnow.config.parts import Compute, Data
from winnow.schema import key, part
from winnow.stage import Job, Stage


@part
class Config:
    """Configuration of synflow."""

    target_sparsity: float = key("percentage of the weights that shall REMAIN", gt=0, lt=100)
    data: Data = key("the task; decides the image size")
    compute: Compute = key("numerical settings")


stage = Stage("synflow", Config, inputs={"weights": "initial weights (gem_init)"}, outputs={"out": "the ticket"})


@stage
def main(job: Job[Config]) -> None:
    """Score, keep, write."""
    from winnow.gems.scores import scorable
    from winnow.prune import synflow
    from winnow.ticket import Ticket
    from winnow.train.device import start
    from winnow.vision import models, sources
    from winnow.vision.batches import Loader
    from winnow.vision.training import place

    cfg = job.config
    device = start(cfg.compute, job, 0)
    sets = sources.load(cfg.data, job.data_root, job.download)
    model = place(models.load_pretrained(job["weights"])[0], cfg.compute, device)
    names = scorable(model)
    example = next(iter(Loader(sets.val, cfg.data, 1, device).once()))
    sizes = dict(model.named_parameters())
    count = round(sum(sizes[n].numel() for n in names) * cfg.target_sparsity / 100.0)
    job.write_ticket("out", Ticket(synflow.masks(model, names, count, [example])), method="synflow")


if __name__ == "__main__":
    sys.exit(stage.run())
