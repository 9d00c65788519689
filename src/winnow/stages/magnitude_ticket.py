"""A one-shot magnitude ticket: the largest weights over all layers together stay (the baseline of IMP without rounds)."""

from __future__ import annotations

import sys

from winnow.prune import magnitude
from winnow.schema import key, part
from winnow.stage import Job, Stage
from winnow.ticket import Ticket
from winnow.weights import prunable_arrays


@part
class Config:
    """Configuration of magnitude_ticket."""

    remaining_fraction: float = key("fraction of the prunable weights to keep", gt=0, le=1)


stage = Stage(
    "magnitude_ticket",
    Config,
    inputs={"weights": "weights to rank: a safetensors file or a model folder"},
    outputs={"out": "the ticket"},
)


@stage
def main(job: Job[Config]) -> None:
    """Rank, keep, write."""
    weights = prunable_arrays(job["weights"])
    count = round(sum(w.size for w in weights.values()) * job.config.remaining_fraction)
    job.write_ticket("out", Ticket(magnitude.masks(weights, count)), method="magnitude")


if __name__ == "__main__":
    sys.exit(stage.run())
