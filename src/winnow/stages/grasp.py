"""The GraSP ticket: the weights at initialisation with the largest preserved gradient flow w * Hg (Wang et al., ICLR 2020).

Scores come from the first images of the shuffled training split; the largest of all layers together are kept.
"""

from __future__ import annotations

import sys

from winnow.config.gems import Sensitivity
from winnow.stage import Job, Stage

stage = Stage("grasp", Sensitivity, inputs={"weights": "initial weights (gem_init)"}, outputs={"out": "the ticket"})


@stage
def main(job: Job[Sensitivity]) -> None:
    """Score, keep, write."""
    from winnow.gems.sensitivity import ticket
    from winnow.prune import grasp

    job.write_ticket("out", ticket(job, grasp), method="grasp", seed=job.config.seed)


if __name__ == "__main__":
    sys.exit(stage.run())
