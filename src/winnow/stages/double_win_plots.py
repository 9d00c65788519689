"""SA and RA against the remaining percentage, a column a pre-training: tickets beside dense, random and one-shot."""

from __future__ import annotations

import sys

from winnow.schema import key, part
from winnow.stage import Job, Stage


@part
class Config:
    """Configuration of double_win_plots."""

    dataset: str = key("downstream task to draw")
    fraction: float = key("fraction of its training data", gt=0, le=1)


stage = Stage(
    "double_win_plots",
    Config,
    inputs={"table": "double_win.csv"},
    outputs={"svg": "the figure", "png": "the figure", "metrics": "what was drawn"},
)


@stage
def main(job: Job[Config]) -> None:
    """Read, draw, write."""
    import pandas as pd

    from winnow.tables.double_win_figure import plot
    from winnow.tables.figures import save

    rows = pd.read_csv(job["table"])
    rows = rows[(rows["dataset"] == job.config.dataset) & (rows["fraction"] == job.config.fraction)]
    figure = plot(rows, f"{job.config.dataset}, {100 * job.config.fraction:g} % of the training data")
    save(figure, job["svg"], job["png"])
    job.write_metrics("metrics", {"rows": len(rows)})


if __name__ == "__main__":
    sys.exit(stage.run())
