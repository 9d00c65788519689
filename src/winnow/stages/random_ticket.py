"""A random ticket, the control of every other ticket: same number of weights, chosen by chance.

With --like TICKET every layer keeps as many weights as that ticket does; with --weights the configured fraction of all
prunable weights is kept, uniformly over all layers together.
"""

from __future__ import annotations

import sys

from winnow.errors import WinnowError
from winnow.prune import random_global, random_like
from winnow.schema import key, part
from winnow.stage import Job, Stage
from winnow.ticket import Ticket
from winnow.weights import prunable_arrays


@part
class Config:
    """Configuration of random_ticket."""

    seed: int = key("seed of the draw")
    remaining_fraction: float | None = key("with --weights: fraction of the weights to keep", None, gt=0, le=1)


stage = Stage(
    "random_ticket",
    Config,
    inputs={
        "like?": "ticket whose per-layer counts to copy",
        "weights?": "weights (safetensors file or model folder) whose shapes to use",
    },
    outputs={"out": "the random ticket"},
)


@stage
def main(job: Job[Config]) -> None:
    """Draw and write."""
    like, weights, fraction = job.inputs["like"], job.inputs["weights"], job.config.remaining_fraction
    if (like is None) == (weights is None):
        raise WinnowError("random_ticket: give either --like TICKET or --weights MODEL")
    if (weights is None) != (fraction is None):
        raise WinnowError(
            "config.remaining_fraction: goes with --weights, and only with it (--like copies the ticket's counts)"
        )
    if like is not None:
        masks = random_like.masks(Ticket.load(job["like"]), job.config.seed)
    else:
        arrays = prunable_arrays(job["weights"])
        count = round(sum(w.size for w in arrays.values()) * (fraction or 0.0))
        masks = random_global.masks(arrays, count, seed=job.config.seed)
    job.write_ticket("out", Ticket(masks), method="random", seed=job.config.seed)


if __name__ == "__main__":
    sys.exit(stage.run())
