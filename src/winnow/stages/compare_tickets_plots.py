"""Overlap of two tickets by layer against chance; loss and accuracy between the networks trained under them."""

from __future__ import annotations

import sys

from winnow.config.jobs import Draw
from winnow.stage import Job, Stage

stage = Stage(
    "compare_tickets_plots",
    Draw,
    inputs={"measured": "metrics: what the stage compare_tickets wrote"},
    outputs={"svg": "the figure", "png": "the figure", "metrics": "what was drawn"},
)


@stage
def main(job: Job[Draw]) -> None:
    """Read, draw, write."""
    from winnow.artifacts import read_json
    from winnow.relations import drawing

    drawing.relation(read_json(job["measured"]), job.config.title, job["svg"], job["png"])
    job.write_metrics("metrics", {"title": job.config.title})


if __name__ == "__main__":
    sys.exit(stage.run())
