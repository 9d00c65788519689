"""Speed-up of a ticket's network over the dense one against the remaining percentage: measured, and by the rule."""

from __future__ import annotations

import sys

from winnow.config.jobs import Draw
from winnow.stage import Job, Stage

stage = Stage(
    "speed_plots",
    Draw,
    inputs={"measured": "metrics: what the stage speed wrote"},
    outputs={"svg": "the figure", "png": "the figure", "metrics": "what was drawn"},
)


@stage
def main(job: Job[Draw]) -> None:
    """Read, draw, write."""
    from winnow.artifacts import read_json
    from winnow.sparse import drawing

    drawing.speed(read_json(job["measured"]), job.config.title, job["svg"], job["png"])
    job.write_metrics("metrics", {"title": job.config.title})


if __name__ == "__main__":
    sys.exit(stage.run())
