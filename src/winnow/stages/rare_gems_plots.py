"""Accuracy against the remaining percentage, before (dashed) and after fine-tuning, a line for each branch."""

from __future__ import annotations

import sys

from winnow.pipelines.rare_gems.grid import Plot
from winnow.stage import Job, Stage

stage = Stage(
    "rare_gems_plots",
    Plot,
    inputs={"table": "rare_gems.csv"},
    outputs={"svg": "the figure", "png": "the figure", "metrics": "what was drawn"},
)
CHECKS = {"reinit_acc": "^", "shuffle_acc": "v", "invert_acc": "x"}


@stage
def main(job: Job[Plot]) -> None:
    """Read, draw, write."""
    import pandas as pd

    from winnow.errors import WinnowError, nearest
    from winnow.tables.figures import colour, pyplot, save

    whole = pd.read_csv(job["table"])
    rows = whole[whole["experiment"] == job.config.experiment]
    if rows.empty:
        raise WinnowError(
            f"config.experiment: {job.config.experiment!r} is not in the table{nearest(job.config.experiment, set(whole['experiment']))}"
        )
    figure, axis = pyplot().subplots(figsize=(5.6, 4.0))
    names = list(dict.fromkeys(rows["branch"]))
    for name in names:
        line = rows[rows["branch"] == name].sort_values("remaining_percent")
        shade, x = colour(name, names), line["remaining_percent"]
        errors = line["acc_after_std"].fillna(0.0)
        axis.errorbar(x, line["acc_after_mean"], errors, color=shade, marker="o", ms=3.5, lw=1.3, capsize=2, label=name)
        axis.plot(x, line["acc_before"], color=shade, ls="--", marker="o", ms=2.5, lw=0.9, alpha=0.8)
        for check, marker in CHECKS.items():
            if line[check].notna().any():
                label = f"{name}: {check.removesuffix('_acc')}"
                axis.plot(x, line[check], color=shade, ls=":", lw=0.7, marker=marker, ms=5, alpha=0.7, label=label)
    axis.set_xscale("log")
    axis.set_xlabel("remaining weights (%, logarithmic)")
    axis.set_ylabel("test accuracy (%); dashed: before fine-tuning")
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axis.set_title(f"{job.config.experiment}: {rows['arch'].iloc[0]}, {rows['dataset'].iloc[0]}")
    save(figure, job["svg"], job["png"])
    job.write_metrics("metrics", {"rows": len(rows)})


if __name__ == "__main__":
    sys.exit(stage.run())
