"""Draw a ticket from scores: exactly the configured fraction with the lowest scores goes, over all layers together.

Robust tickets (ACL 2022.acl-long.157, section 3.3): the scores of one search serve every sparsity, so another removed
fraction costs a draw and never a search. Row and matrix scores are spread over the weights that share them first;
scores of blocks are ranked and counted themselves, as the released program does.
"""

from __future__ import annotations

import sys

import numpy as np

from winnow.artifacts import read_arrays, read_metadata
from winnow.errors import WinnowError
from winnow.pipelines.robust_bert.jobs import DrawTicket
from winnow.prune.counts import keep_largest, tiled
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
    shapes, found = record["shapes"], read_arrays(job["scores"])
    blocks = {n: s[0, :, 0, :] for n, s in found.items() if s.ndim == 4}
    scores = blocks or {n: np.broadcast_to(s, shapes[n]) for n, s in found.items()}
    total = sum(s.size for s in scores.values())
    kept = keep_largest(scores, total - round(total * job.config.removed_fraction))
    kept = tiled(kept, shapes) if blocks else kept
    origin = {"search_epoch": record["search_epoch"], "search_seed": record["seed"]}
    job.write_ticket("out", Ticket(kept), method="robust_ticket", **origin)


if __name__ == "__main__":
    sys.exit(stage.run())
