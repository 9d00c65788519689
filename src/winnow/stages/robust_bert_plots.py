"""Clean accuracy and accuracy under attack against the removed percentage, a column an attacker."""

from __future__ import annotations

import sys

from winnow.schema import key, part
from winnow.stage import Job, Stage


@part
class Config:
    """Configuration of robust_bert_plots."""

    task: str = key("task to draw")


stage = Stage(
    "robust_bert_plots",
    Config,
    inputs={"table": "robust_bert.csv"},
    outputs={"svg": "the figure", "png": "the figure", "metrics": "what was drawn"},
)


@stage
def main(job: Job[Config]) -> None:
    """Read, draw, write."""
    import pandas as pd

    from winnow.tables.figures import save
    from winnow.tables.robust_bert_figure import plot

    rows = pd.read_csv(job["table"])
    rows = rows[rows["task"] == job.config.task]
    save(plot(rows, job.config.task), job["svg"], job["png"])
    job.write_metrics("metrics", {"rows": len(rows)})


if __name__ == "__main__":
    sys.exit(stage.run())
