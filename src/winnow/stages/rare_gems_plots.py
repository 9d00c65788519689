"""Accuracy against the remaining percentage, after fine-tuning and before any training, a line for each branch."""

from __future__ import annotations

import sys

from winnow.pipelines.rare_gems.grid import Plot
from winnow.stage import Job, Stage

stage = Stage(
    "rare_gems_plots",
    Plot,
    inputs={"table": "rare_gems.csv"},
    outputs={"svg": "the figure", "pdf": "the figure", "png": "the figure", "metrics": "what was drawn"},
)


@stage
def main(job: Job[Plot]) -> None:
    """Read, draw, write."""
    import pandas as pd

    from winnow.errors import WinnowError, nearest
    from winnow.pipelines.rare_gems.figure import plot
    from winnow.tables.figures import save

    whole = pd.read_csv(job["table"])
    rows = whole[whole["experiment"] == job.config.experiment]
    if rows.empty:
        raise WinnowError(
            f"config.experiment: {job.config.experiment!r} is not in the "
            f"table{nearest(job.config.experiment, set(whole['experiment']))}"
        )
    figure = plot(rows, f"{job.config.experiment} ({rows['arch'].iloc[0]}, {rows['dataset'].iloc[0]})")
    save(figure, job["svg"], job["pdf"], job["png"])
    job.write_metrics("metrics", {"rows": len(rows)})


if __name__ == "__main__":
    sys.exit(stage.run())
