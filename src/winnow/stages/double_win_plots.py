"""SA and RA against the remaining percentage, a column a pre-training: tickets beside dense, random and one-shot."""

from __future__ import annotations

import sys
from typing import Any

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
ROWS = {
    "std_sa": "SA (%)\nstandard transfer",
    "adv_sa": "SA (%)\nadversarial transfer",
    "adv_ra": "RA (%)\nadversarial transfer",
}


@stage
def main(job: Job[Config]) -> None:
    """Read, draw, write."""
    import pandas as pd

    from winnow.tables.figures import pyplot, save

    rows = pd.read_csv(job["table"])
    rows = rows[(rows["dataset"] == job.config.dataset) & (rows["fraction"] == job.config.fraction)]
    columns = list(dict.fromkeys(rows["pretraining"]))
    figure, axes = pyplot().subplots(
        len(ROWS), len(columns), figsize=(3.1 * len(columns) + 1, 6.6), sharex=True, sharey="row", squeeze=False
    )
    for j, name in enumerate(columns):
        axes[0, j].set_title(f"pre-training: {name}")
        axes[-1, j].set_xlabel("remaining weights (%)")
        for i, metric in enumerate(ROWS):
            draw(axes[i, j], rows[rows["pretraining"] == name], metric, sorted(set(rows["method"])))
    for i, label in enumerate(ROWS.values()):
        axes[i, 0].set_ylabel(label)
    handles = {text: line for a in axes.flat for line, text in zip(*a.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=4, bbox_to_anchor=(0.5, -0.05))
    figure.suptitle(f"{job.config.dataset}, {100 * job.config.fraction:g} % of the training data")
    save(figure, job["svg"], job["png"])
    job.write_metrics("metrics", {"rows": len(rows)})


def draw(axis: Any, rows: Any, metric: str, methods: list[str]) -> None:
    """One panel: for each method and IMP regime a line from the dense model, with error bars; the dense spread as a band."""
    from winnow.tables.figures import colour

    dense = rows[rows["method"] == "dense"].iloc[0]
    mean, spread = dense[f"{metric}_mean"], dense[f"{metric}_std"] if dense["seeds"] > 1 else 0.0
    axis.axhline(mean, color=colour("dense", methods), lw=1, label="dense")
    axis.axhspan(mean - spread, mean + spread, color=colour("dense", methods), alpha=0.12, lw=0)
    tickets = rows[rows["method"] != "dense"].groupby(["method", "imp_regime"])
    for i, ((method, regime), part_of) in enumerate(tickets):
        part_of = part_of.sort_values("remaining_percent", ascending=False)
        label = method if regime == "none" else f"{method} ({regime})"
        style = "--" if regime == "adv" else "-"
        x = part_of["remaining_percent"] + (i - (len(tickets) - 1) / 2)  # side by side, so that error bars stay apart
        y, errors = part_of[f"{metric}_mean"], part_of[f"{metric}_std"].fillna(0.0)
        shade = colour(method, methods)
        axis.plot([100.0, x.iloc[0]], [mean, y.iloc[0]], color=shade, ls=style, lw=1.2)
        axis.errorbar(x, y, errors, color=shade, ls=style, marker="o", ms=3.5, lw=1.2, capsize=2, label=label)
    axis.set_xlim(102, max(0, rows["remaining_percent"].min() - 8))


if __name__ == "__main__":
    sys.exit(stage.run())
