"""Random pruning: a ticket with the per-layer counts of another one, its positions drawn by the seed."""

from __future__ import annotations

import sys

from winnow.prune import random_like
from winnow.schema import key, part
from winnow.stage import Job, Stage
from winnow.ticket import Ticket


@part
class Config:
    """Configuration of random_prune."""

    seed: int = key("draws the positions", ge=0)


stage = Stage("random_prune", Config, inputs={"like": "ticket whose per-layer counts are kept"}, outputs={"out": "ticket"})


@stage
def main(job: Job[Config]) -> None:
    """Draw, write."""
    job.write_ticket("out", Ticket(random_like.masks(Ticket.load(job["like"]), job.config.seed)), method="random")


if __name__ == "__main__":
    sys.exit(stage.run())
