"""The robust-ticket figure; apart from the table, which a matter of style must not touch."""

from __future__ import annotations

from typing import Any

import pandas as pd

from winnow.tables.figures import colour, panels, shared_legend

PANELS = {"clean": "clean accuracy (%)", "aua": "accuracy under attack (%)"}


def plot(rows: pd.DataFrame, title: str) -> Any:
    """The figure of one task's rows of the table: accuracy against the removed percentage, a column an attacker."""
    figure = panels(rows, "attacker", "", "removed weights (%)", PANELS, _panel, height=5.2)
    shared_legend(figure, columns=3, below=0.1)
    figure.suptitle(f"{title}: mean and standard deviation over seeds")
    return figure


def _panel(axis: Any, rows: pd.DataFrame, metric: str, methods: list[str]) -> None:
    """Tickets as lines over the sparsity, networks without a mask as horizontal lines."""
    for (method, epoch), part_of in rows.groupby(["method", "search_epoch"]):
        part_of = part_of.sort_values("removed_percent")
        x, y, errors = part_of["removed_percent"], part_of[f"{metric}_percent"], part_of[f"{metric}_std"].fillna(0.0)
        shade = colour(method, methods)
        if method in ("dense", "freelb"):
            axis.axhline(y.iloc[0], color=shade, lw=1, ls="-" if method == "dense" else ":", label=method)
        else:
            label = f"{method} (epoch {epoch})" if epoch else method
            axis.errorbar(x, y, errors, color=shade, marker="o", ms=3, lw=1.2, capsize=2, label=label)
    axis.set_ylim(0, 102)
