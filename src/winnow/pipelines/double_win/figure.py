"""The double-win figure; apart from the table, which a matter of style must not touch."""

from __future__ import annotations

from typing import Any

import pandas as pd

from winnow.tables.figures import colour, panels, shared_legend

PANELS = {
    "std_sa": "SA (%)\nstandard transfer",
    "adv_sa": "SA (%)\nadversarial transfer",
    "adv_ra": "RA (%)\nadversarial transfer",
}


def plot(rows: pd.DataFrame, title: str) -> Any:
    """The figure of one downstream's rows of the table: SA and RA against the remaining percentage, a column a pre-training."""
    figure = panels(rows, "pretraining", "pre-training: ", "remaining weights (%)", PANELS, _panel, height=6.6)
    shared_legend(figure, columns=4, below=0.05)
    figure.suptitle(title)
    return figure


def _panel(axis: Any, rows: pd.DataFrame, metric: str, methods: list[str]) -> None:
    """One panel: for each method and IMP regime a line from the dense model, with error bars; the dense spread as a band."""
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
