"""Clean accuracy and accuracy under attack against the removed percentage, a column an attacker."""

from __future__ import annotations

import sys
from typing import Any

from winnow.schema import key, part
from winnow.stage import Job, Stage


@part
class Config:
    """Configuration of robust_bert_plots."""

    task: str = key("task to draw")


stage = Stage(
    "robust_bert_plots", Config, inputs={"table": "robust_bert.csv"}, outputs={"svg": "the figure", "png": "the figure"}
)
ROWS = {"clean": "clean accuracy (%)", "aua": "accuracy under attack (%)"}


@stage
def main(job: Job[Config]) -> None:
    """Read, draw, write."""
    import pandas as pd

    from winnow.tables.figures import pyplot, save

    rows = pd.read_csv(job["table"])
    rows = rows[rows["task"] == job.config.task]
    attackers, methods = list(dict.fromkeys(rows["attacker"])), sorted(set(rows["method"]))
    figure, axes = pyplot().subplots(
        len(ROWS), len(attackers), figsize=(3.1 * len(attackers) + 1, 5.2), sharex=True, sharey="row", squeeze=False
    )
    for j, attacker in enumerate(attackers):
        axes[0, j].set_title(attacker)
        axes[-1, j].set_xlabel("removed weights (%)")
        for i, metric in enumerate(ROWS):
            draw(axes[i, j], rows[rows["attacker"] == attacker], metric, methods)
    for i, label in enumerate(ROWS.values()):
        axes[i, 0].set_ylabel(label)
    handles = {text: line for a in axes.flat for line, text in zip(*a.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=3, bbox_to_anchor=(0.5, -0.1))
    figure.suptitle(f"{job.config.task}: mean and standard deviation over seeds")
    save(figure, job["svg"], job["png"])


def draw(axis: Any, rows: Any, metric: str, methods: list[str]) -> None:
    """One panel: tickets as lines over the sparsity, networks without a mask as horizontal lines."""
    from winnow.tables.figures import colour

    for (method, epoch), part_of in rows.groupby(["method", "search_epoch"]):
        part_of = part_of.sort_values("removed_percent")
        y, errors = part_of[f"{metric}_percent"], part_of[f"{metric}_std"].fillna(0.0)
        if method in ("dense", "freelb"):
            axis.axhline(y.iloc[0], color=colour(method, methods), lw=1, ls="-" if method == "dense" else ":", label=method)
            continue
        label = f"{method} (epoch {epoch})" if epoch else method
        axis.errorbar(
            part_of["removed_percent"],
            y,
            errors,
            color=colour(method, methods),
            marker="o",
            ms=3,
            lw=1.2,
            capsize=2,
            label=label,
        )
    axis.set_ylim(0, 102)


if __name__ == "__main__":
    sys.exit(stage.run())
