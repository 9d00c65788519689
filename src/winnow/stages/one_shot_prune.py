"""One-shot magnitude pruning (OMP): the dense weights pruned once to the remaining percentage of an IMP round."""

from __future__ import annotations

import sys

from winnow.prune import magnitude
from winnow.prune.counts import imp_count
from winnow.schema import key, part
from winnow.stage import Job, Stage
from winnow.ticket import Ticket
from winnow.weights import prunable_arrays


@part
class Config:
    """Configuration of one_shot_prune."""

    prune_percent: float = key("percentage of the remaining weights that one IMP round removes", 20.0, gt=0, lt=100)
    round: int = key("IMP round whose count is kept", ge=1)


stage = Stage("one_shot_prune", Config, inputs={"weights": "dense weights to rank"}, outputs={"out": "ticket"})


@stage
def main(job: Job[Config]) -> None:
    """Rank, remove, write."""
    weights = prunable_arrays(job["weights"])
    count = imp_count(sum(w.size for w in weights.values()), job.config.round, job.config.prune_percent)
    job.write_ticket("out", Ticket(magnitude.masks(weights, count)), method="omp", round=job.config.round)


if __name__ == "__main__":
    sys.exit(stage.run())
