"""Clean accuracy and accuracy under attack against the remaining percentage, a column an attacker."""

from __future__ import annotations

import sys

from winnow.pipelines.robust_bert.grid import Plot
from winnow.stage import Job, Stage

stage = Stage(
    "robust_bert_plots",
    Plot,
    inputs={"table": "robust_bert.csv"},
    outputs={"svg": "the figure", "pdf": "the figure", "png": "the figure", "metrics": "what was drawn"},
)


@stage
def main(job: Job[Plot]) -> None:
    """Read, draw, write."""
    import pandas as pd

    from winnow.pipelines.robust_bert.figure import plot
    from winnow.tables.figures import save

    rows = pd.read_csv(job["table"])
    rows = rows[rows["task"] == job.config.task]
    save(plot(rows, job.config.task), job["svg"], job["pdf"], job["png"])
    job.write_metrics("metrics", {"rows": len(rows)})


if __name__ == "__main__":
    sys.exit(stage.run())
