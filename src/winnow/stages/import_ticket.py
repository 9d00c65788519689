"""Read a ticket from a file of the papers' released programs, of torch.nn.utils.prune or of winnow, checked to fit.

No code in the file is executed. Layouts: `X_mask` (.pth.tar of Double-win), `X.flag` and `X.scores` (Gem-Miner,
edge-popup, IMP rounds), a round_<k>_mask.npy, `X.mask.mask_scores` (Robust tickets). Every mask must name a weight and
have its shape.
"""

from __future__ import annotations

import sys

from winnow.config.jobs import ImportTicket
from winnow.stage import Job, Stage

stage = Stage(
    "import_ticket",
    ImportTicket,
    inputs={
        "file": "the .pth.tar, .pth, .pt, .bin, .npy or .safetensors file",
        "weights": "dense weights that it must fit",
    },
    outputs={"out": "ticket"},
)


@stage
def main(job: Job[ImportTicket]) -> None:
    """Read, check, write."""
    import logging

    from winnow.artifacts import read_arrays, read_metadata
    from winnow.errors import WinnowError
    from winnow.interchange import head_of, read_checkpoint, tickets_from_file
    from winnow.ticket import Ticket

    cfg, path, weights = job.config, job["file"], job["weights"]
    shapes = {k: v.shape for k, v in read_arrays(weights).items()}
    if path.suffix == ".safetensors" and read_metadata(path).get("kind") == "ticket":
        ticket, keeps_head = Ticket(Ticket.load(path).arrays), True
    else:
        found = tickets_from_file(read_checkpoint(path), str(path), shapes, cfg.remaining_percent, cfg.rule)
        ticket, keeps_head = found.ticket, found.layout == "gem_miner" or path.suffix == ".npy"
    ticket.check_fits(shapes, str(weights))
    dropped = []
    if cfg.head == "drop" or (cfg.head == "auto" and not keeps_head):
        dropped = [n for n in head_of(weights) if n in ticket.arrays]
    if dropped:
        if len(dropped) == len(ticket.arrays):
            raise WinnowError(f"{path}: masks the classification head alone, which a transfer replaces; set head: keep")
        logging.getLogger("winnow").warning(
            "%s: masks of the head dropped (%s), since a transfer replaces it; head: keep keeps them",
            path,
            ", ".join(dropped),
        )
        ticket = Ticket({n: m for n, m in ticket.arrays.items() if n not in dropped})
    job.write_ticket("out", ticket, method="imported", dropped=dropped)


if __name__ == "__main__":
    sys.exit(stage.run())
