"""Read a ticket from a released checkpoint (`weight_mask`, `flag` or `mask_scores` keys) or a winnow ticket, checked to fit.

No code in the file is executed. Every mask must name a weight of the model and have its shape.
"""

from __future__ import annotations

import sys

from winnow.config.jobs import ImportTicket
from winnow.stage import Job, Stage

stage = Stage(
    "import_ticket",
    ImportTicket,
    inputs={"file": "the .pth.tar, .pth or .safetensors file", "weights": "dense weights that the ticket must fit"},
    outputs={"out": "ticket"},
)


@stage
def main(job: Job[ImportTicket]) -> None:
    """Read, check, write."""
    from winnow.artifacts import read_arrays, read_metadata
    from winnow.interchange import masks_from_state, read_checkpoint
    from winnow.ticket import Ticket

    path, shapes = job["file"], {k: v.shape for k, v in read_arrays(job["weights"]).items()}
    if path.suffix == ".safetensors" and read_metadata(path).get("kind") == "ticket":
        ticket = Ticket(Ticket.load(path).arrays)
    else:
        ticket = masks_from_state(read_checkpoint(path), str(path), set(shapes), job.config.remaining_percent)
    ticket.check_fits(shapes, str(job["weights"]))
    job.write_ticket("out", ticket, method="imported")


if __name__ == "__main__":
    sys.exit(stage.run())
