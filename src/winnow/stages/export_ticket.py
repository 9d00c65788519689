"""Write a ticket in the released .pth.tar format: `weight_mask` keys, and `weight_orig` with the weights if given.

The layout that torch.nn.utils.prune gives a state dict, which the released downstream scripts read.
"""

from __future__ import annotations

import sys

from winnow.config.jobs import ExportTicket
from winnow.stage import Job, Stage

stage = Stage(
    "export_ticket",
    ExportTicket,
    inputs={"mask": "ticket", "weights?": "dense weights to put beside the masks"},
    outputs={"out": "the .pth.tar file", "metrics": "what was exported"},
)


@stage
def main(job: Job[ExportTicket]) -> None:
    """Read, write."""
    from winnow.artifacts import read_tensors
    from winnow.interchange import write_released
    from winnow.ticket import Ticket

    ticket = Ticket.load(job["mask"])
    weights = read_tensors(job["weights"]) if job.inputs["weights"] else None
    if weights is not None:
        ticket.check_fits({k: tuple(v.shape) for k, v in weights.items()}, str(job["weights"]))
    write_released(job["out"], ticket, weights)
    job.write_metrics("metrics", {"remaining_percent": ticket.remaining_percent})


if __name__ == "__main__":
    sys.exit(stage.run())
