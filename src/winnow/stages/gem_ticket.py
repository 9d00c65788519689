"""A ticket at any sparsity above a search's target, from the order in which the search gave its weights up.

One iterative search serves all sparsities: ceil(removed) weights go, by prune and, within a prune, by score.
"""

from __future__ import annotations

import sys

from winnow.artifacts import read_metadata
from winnow.gems.order import draw, read_order
from winnow.pipelines.rare_gems.jobs import GemTicket
from winnow.stage import Job, Stage
from winnow.ticket import Ticket

stage = Stage(
    "gem_ticket", GemTicket, inputs={"order": "what gem_search wrote as --order"}, outputs={"out": "the ticket"}
)


@stage
def main(job: Job[GemTicket]) -> None:
    """Draw, write."""
    levels, scores = read_order(job["order"])
    masks = draw(levels, scores, job.config.target_sparsity / 100.0)
    job.write_ticket("out", Ticket(masks), method=read_metadata(job["order"])["method"])


if __name__ == "__main__":
    sys.exit(stage.run())
