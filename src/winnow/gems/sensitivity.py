"""A ticket from scores at initialisation, for the baselines that Rare Gems names: the method on the job's first images."""

from __future__ import annotations

from typing import Any

from winnow.config.gems import Sensitivity
from winnow.gems.scores import scorable
from winnow.stage import Job
from winnow.ticket import Ticket
from winnow.train.device import start
from winnow.vision import models, sources
from winnow.vision.batches import Loader
from winnow.vision.training import place


def ticket(job: Job[Sensitivity], method: Any) -> Ticket:
    """The job's ticket by a method of `winnow.prune` that takes a model, on the first images of the shuffled training split."""
    cfg = job.config
    device = start(cfg.compute, job, cfg.seed)
    sets = sources.load(cfg.data, job.data_root, job.download)
    model = place(models.load_pretrained(job["weights"])[0], cfg.compute, device)
    batch = next(iter(Loader(sets.train, cfg.data, cfg.images, device, cfg.seed, job.workers).epoch(0)))
    names, parameters = scorable(model), dict(model.named_parameters())
    count = round(sum(parameters[n].numel() for n in names) * cfg.target_sparsity / 100.0)
    return Ticket(method.masks(model, names, count, [batch]))
