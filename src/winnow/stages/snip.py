"""The SNIP ticket: the weights at initialisation with the largest connection sensitivity |dL/dw * w| (Lee et al., ICLR 2019).

Scores come from the first images of the shuffled training split; the largest of all layers together are kept.
"""

from __future__ import annotations

import sys

from winnow.config.gems import Sensitivity
from winnow.stage import Job, Stage

stage = Stage("snip", Sensitivity, inputs={"weights": "initial weights (gem_init)"}, outputs={"out": "the ticket"})


@stage
def main(job: Job[Sensitivity]) -> None:
    """Score, keep, write."""
    from winnow.gems.sensitivity import ticket
    from winnow.prune import snip

    job.write_ticket("out", ticket(job, snip), method="snip", seed=job.config.seed)


if __name__ == "__main__":
    sys.exit(stage.run())
