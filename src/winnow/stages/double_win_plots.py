"""SA and RA against the remaining percentage, a column a pre-training: tickets beside dense, random and one-shot."""

from __future__ import annotations

import sys

from winnow.pipelines import percent
from winnow.pipelines.double_win.grid import Plot
from winnow.stage import Job, Stage

stage = Stage(
    "double_win_plots",
    Plot,
    inputs={"table": "double_win.csv"},
    outputs={"svg": "the figure", "pdf": "the figure", "png": "the figure", "metrics": "what was drawn"},
)


@stage
def main(job: Job[Plot]) -> None:
    """Read, draw, write."""
    import pandas as pd

    from winnow.pipelines.double_win.figure import plot
    from winnow.tables.figures import save

    rows = pd.read_csv(job["table"])
    wanted = percent(job.config.fraction)  # as in paths: the table rounds a third
    rows = rows[(rows["dataset"] == job.config.dataset) & (rows["fraction"].map(percent) == wanted)]
    figure = plot(rows, f"{job.config.dataset}, {wanted} % of the training data")
    save(figure, job["svg"], job["pdf"], job["png"])
    job.write_metrics("metrics", {"rows": len(rows)})


if __name__ == "__main__":
    sys.exit(stage.run())
