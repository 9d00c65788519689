"""Read a ticket from a released checkpoint (`weight_mask`, `flag` or `mask_scores` keys) or a winnow ticket, checked to fit.

No code in the file is executed. Every mask must name a weight of the model and have its shape.
"""

from __future__ import annotations

import sys

from winnow.schema import key, part
from winnow.stage import Job, Stage


@part
class Config:
    """Configuration of import_ticket."""

    remaining_percent: float | None = key("for files with mask_scores: keep this percentage, globally", None, gt=0, le=100)


stage = Stage(
    "import_ticket",
    Config,
    inputs={"file": "the .pth.tar, .pth or .safetensors file", "weights": "dense weights that the ticket must fit"},
    outputs={"out": "ticket"},
)


@stage
def main(job: Job[Config]) -> None:
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
