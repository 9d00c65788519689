"""A ticket at any sparsity above a search's target, from the order in which the search gave its weights up.

One iterative search serves all sparsities: ceil(removed) weights go, by prune and, within a prune, by score.
"""

from __future__ import annotations

import sys

from winnow.artifacts import read_metadata
from winnow.gems.order import draw, read_order
from winnow.schema import key, part
from winnow.stage import Job, Stage
from winnow.ticket import Ticket


@part
class Config:
    """Configuration of gem_ticket."""

    target_sparsity: float = key("percentage of the weights that shall REMAIN", gt=0, lt=100)


stage = Stage("gem_ticket", Config, inputs={"order": "what gem_search wrote as --order"}, outputs={"out": "the ticket"})


@stage
def main(job: Job[Config]) -> None:
    """Draw, write."""
    levels, scores = read_order(job["order"])
    masks = draw(levels, scores, job.config.target_sparsity / 100.0)
    job.write_ticket("out", Ticket(masks), method=read_metadata(job["order"])["method"])


if __name__ == "__main__":
    sys.exit(stage.run())
