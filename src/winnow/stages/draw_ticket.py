"""Draw a ticket from scores: exactly the configured fraction with the lowest scores goes, over all layers together.

Robust tickets (ACL 2022.acl-long.157, section 3.3): the scores of one search serve every sparsity, so another removed
fraction costs a draw and never a search. Row and matrix scores are spread over the weights that share them first.
"""

from __future__ import annotations

import sys

import numpy as np

from winnow.artifacts import read_arrays, read_metadata
from winnow.errors import WinnowError
from winnow.pipelines.robust_bert.jobs import DrawTicket
from winnow.prune.counts import keep_largest
from winnow.stage import Job, Stage
from winnow.ticket import Ticket

stage = Stage(
    "draw_ticket",
    DrawTicket,
    inputs={"scores": "scores of a search, named as the weights they belong to"},
    outputs={"out": "the ticket"},
)


@stage
def main(job: Job[DrawTicket]) -> None:
    """Rank, keep, write."""
    record = read_metadata(job["scores"])
    if record.get("kind") != "scores":
        raise WinnowError(f"{job['scores']}: holds no scores; give what search_robust_ticket wrote")
    scores = {n: np.broadcast_to(s, record["shapes"][n]) for n, s in read_arrays(job["scores"]).items()}
    total = sum(s.size for s in scores.values())
    kept = keep_largest(scores, total - round(total * job.config.removed_fraction))
    origin = {"search_epoch": record["search_epoch"], "search_seed": record["seed"]}
    job.write_ticket("out", Ticket(kept), method="robust_ticket", **origin)


if __name__ == "__main__":
    sys.exit(stage.run())
