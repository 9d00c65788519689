"""Write a ticket in the layout that a paper's released programs read, with the weights where the layout holds them.

The default is Double-win's: the state dict that torch.nn.utils.prune gives, with `weight_mask` and `weight_orig`.
"""

from __future__ import annotations

import sys

from winnow.config.jobs import ExportTicket
from winnow.stage import Job, Stage

stage = Stage(
    "export_ticket",
    ExportTicket,
    inputs={"mask": "ticket", "weights?": "dense weights to put beside the masks"},
    outputs={"out": "the file", "metrics": "what was exported"},
)


@stage
def main(job: Job[ExportTicket]) -> None:
    """Read, write."""
    from winnow.artifacts import read_tensors
    from winnow.interchange import write_layout
    from winnow.ticket import Ticket
    from winnow.weights import record_of

    ticket = Ticket.load(job["mask"])
    weights, arch = (read_tensors(job["weights"]), "") if job.inputs["weights"] else (None, "")
    if weights is not None:
        arch = record_of(job["weights"]).get("model", {}).get("arch", "")
        ticket.check_fits({k: tuple(v.shape) for k, v in weights.items()}, str(job["weights"]))
    write_layout(job["out"], job.config.layout, ticket, weights, arch)
    job.write_metrics("metrics", {"layout": job.config.layout, "remaining_percent": ticket.remaining_percent})


if __name__ == "__main__":
    sys.exit(stage.run())
