"""One pruning round of IMP: the smallest remaining convolution weights go, globally by magnitude.

Round 1 prunes the pre-trained weights; round k prunes what round k-1 trained, under the mask of round k-1 (Double-win tickets,
ICML 2022, section 3.1). Masks are nested; the head is never pruned.
"""

from __future__ import annotations

import sys

from winnow.errors import WinnowError
from winnow.prune import magnitude
from winnow.prune.counts import imp_count
from winnow.schema import key, part
from winnow.stage import Job, Stage
from winnow.ticket import Ticket
from winnow.weights import prunable_arrays


@part
class Config:
    """Configuration of imp_prune."""

    prune_percent: float = key("percentage of the remaining weights that one round removes", 20.0, gt=0, lt=100)
    round: int = key("number of this round, from 1", ge=1)


stage = Stage(
    "imp_prune",
    Config,
    inputs={
        "weights": "weights to rank: the dense init in round 1, then what the last round trained",
        "mask?": "ticket of the last round",
    },
    outputs={"out": "ticket of this round"},
)


@stage
def main(job: Job[Config]) -> None:
    """Rank, remove, write."""
    cfg, weights = job.config, prunable_arrays(job["weights"])
    last = Ticket.load(job["mask"]) if job.inputs["mask"] else None
    if (last is None) != (cfg.round == 1):
        raise WinnowError(f"config.round: round {cfg.round} {'needs' if last is None else 'takes no'} --mask")
    if last is not None:
        last.check_fits({k: v.shape for k, v in weights.items()}, str(job["weights"]))
    count = imp_count(sum(w.size for w in weights.values()), cfg.round, cfg.prune_percent)
    kept = magnitude.masks(weights, count, last.arrays if last else None)
    job.write_ticket("out", Ticket(kept), method="imp", round=cfg.round)


if __name__ == "__main__":
    sys.exit(stage.run())
