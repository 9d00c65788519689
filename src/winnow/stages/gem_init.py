"""Initial weights for a gem search and its baselines: drawn by a published initialisation, or pre-trained ones brought
to the task.

With --weights a head of another number of classes is replaced by a freshly drawn one, and everything else is kept: a
search from there gives warm gems.
"""

from __future__ import annotations

import sys

from winnow.pipelines.rare_gems.jobs import GemInit
from winnow.stage import Job, Stage

stage = Stage(
    "gem_init", GemInit, inputs={"weights?": "pre-trained weights to start from"}, outputs={"out": "initial weights"}
)


@stage
def main(job: Job[GemInit]) -> None:
    """Draw or adapt, write."""
    import torch

    from winnow.config.parts import Corpus
    from winnow.errors import WinnowError
    from winnow.gems.inits import initialise
    from winnow.gems.scores import hard_prunable, scorable
    from winnow.language import corpus
    from winnow.rng import seed_of
    from winnow.vision import models, sources

    cfg = job.config
    torch.manual_seed(seed_of(cfg.seed, "init"))
    if isinstance(cfg.data, Corpus):
        num_classes = corpus.load(cfg.data, job.run.data_root).num_classes
    else:
        num_classes = sources.load(cfg.data, job.run.data_root, job.run.download).num_classes
    if job.inputs["weights"]:
        model, spec = models.load_pretrained(job["weights"])
        if spec["num_classes"] != num_classes:
            model, spec = models.load_pretrained(job["weights"], num_classes)
    else:
        if cfg.model is None or cfg.init is None:
            raise WinnowError("config: gem_init needs model and init, or --weights to start from")
        model, spec = models.build(cfg.model, num_classes), models.spec(cfg.model, num_classes)
        scale = cfg.init.target_sparsity / 100.0 if cfg.init.scale_fan else 1.0
        drawn = [n for n in scorable(model) if n not in getattr(model, "drawn_by_itself", ())]
        initialise(model, drawn, cfg.init.init, scale, cfg.seed)
    job.write_weights("out", model.state_dict(), model=spec, prunable=hard_prunable(model))


if __name__ == "__main__":
    sys.exit(stage.run())
