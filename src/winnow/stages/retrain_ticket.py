"""Retrain a ticket: its mask on the ORIGINAL pre-trained weights, then plain fine-tuning under that fixed mask.

Robust tickets (ACL 2022.acl-long.157, section 3.3). Embeddings, biases, LayerNorm and the head train too; pruned weights
stay exactly zero in the model folder that comes out.
"""

from __future__ import annotations

import sys

from winnow.stage import Job, Stage
from winnow.stages.finetune_text import Config, run

stage = Stage(
    "retrain_ticket",
    Config,
    inputs={"model": "pre-trained model folder, named by its model.safetensors", "mask": "the ticket"},
    outputs={"out": "the retrained model folder, named by its model.safetensors", "metrics": "accuracy of every epoch"},
    trains=True,
)


@stage
def main(job: Job[Config]) -> None:
    """Mask, train, write."""
    run(job)


if __name__ == "__main__":
    sys.exit(stage.run())
