"""Read a ticket from a file of the papers' released programs, of torch.nn.utils.prune or of winnow, checked to fit.

No code in the file is executed. Layouts: `X_mask` (.pth.tar of Double-win), `X.flag` and `X.scores` (Gem-Miner, edge-popup,
IMP rounds), a round_<k>_mask.npy, `X.mask.mask_scores` (Robust tickets). Every mask must name a weight and have its shape.
"""

from __future__ import annotations

import sys
from typing import Literal

from winnow.schema import key, part
from winnow.stage import Job, Stage


@part
class Config:
    """Configuration of import_ticket."""

    remaining_percent: float | None = key(
        "for files with scores: keep this percentage, as the program that wrote them would", None, gt=0, le=100
    )
    rule: Literal["auto", "flags", "flags_and_scores", "ep", "global_ep", "weights"] = key(
        "masks of a Gem-Miner checkpoint: flags (what was not hard-pruned), flags_and_scores (of that, what rounds to 1), ep or "
        "global_ep (the remaining_percent largest scores), weights (what is not zero: IMP rounds); auto: flags_and_scores, or "
        "weights where all flags are 1 and weights are zero", "auto",
    )  # fmt: skip
    head: Literal["auto", "keep", "drop"] = key(
        "masks of the classification head, which a transfer replaces; auto: kept in the rare-gems layouts, which prune it, else "
        "dropped", "auto",
    )  # fmt: skip


stage = Stage(
    "import_ticket",
    Config,
    inputs={"file": "the .pth.tar, .pth, .pt, .bin, .npy or .safetensors file", "weights": "dense weights that it must fit"},
    outputs={"out": "ticket"},
)


@stage
def main(job: Job[Config]) -> None:
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
            "%s: masks of the head dropped (%s), since a transfer replaces it; head: keep keeps them", path, ", ".join(dropped)
        )
        ticket = Ticket({n: m for n, m in ticket.arrays.items() if n not in dropped})
    job.write_ticket("out", ticket, method="imported", dropped=dropped)


if __name__ == "__main__":
    sys.exit(stage.run())
