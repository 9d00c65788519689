"""The smart-ratio ticket: random within layers, fewer weights the deeper a layer lies (Su et al., NeurIPS 2020).

Layers are the prunable weights of --weights in the model's own order; the last one keeps 30 %.
"""

from __future__ import annotations

import sys

from winnow.prune import smart_ratio
from winnow.schema import key, part
from winnow.stage import Job, Stage
from winnow.ticket import Ticket
from winnow.weights import prunable_arrays


@part
class Config:
    """Configuration of smart_ratio."""

    target_sparsity: float = key("percentage of the weights that shall REMAIN", gt=0, lt=100)
    divide_by_square: bool = key("divide the proportions by l^2, as published for VGG", False)
    seed: int = key("draws the positions", ge=0)


stage = Stage(
    "smart_ratio", Config, inputs={"weights": "weights whose layers to cover (gem_init)"}, outputs={"out": "the ticket"}
)


@stage
def main(job: Job[Config]) -> None:
    """Count, draw, write."""
    cfg = job.config
    weights = prunable_arrays(job["weights"])
    wanted = sum(w.size for w in weights.values()) * (cfg.target_sparsity / 100.0)
    masks = smart_ratio.masks(weights, wanted, seed=cfg.seed, divide_by_square=cfg.divide_by_square)
    job.write_ticket("out", Ticket(masks), method="smart_ratio", seed=cfg.seed)


if __name__ == "__main__":
    sys.exit(stage.run())
