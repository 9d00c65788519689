"""The robust-ticket figure; apart from the table, which a matter of style must not touch."""

from __future__ import annotations

from typing import Any

import pandas as pd

from winnow.tables.figures import line, look, panels, shared_legend, spread_in_words, winners

PANELS = {"clean": "clean accuracy (%)", "aua": "accuracy under attack (%)"}
WITHOUT_MASK = ("dense", "freelb")


def plot(rows: pd.DataFrame, title: str) -> Any:
    """The figure of one task's rows of the table: accuracy against the remaining percentage, a column an attacker."""
    rows = rows[rows["retrain_epoch"] == 0]  # at the end of the training
    rows = rows.assign(remaining_percent=100.0 - rows["removed_percent"])
    figure = panels(rows, "attacker", "", PANELS, _panel, height=5.2)
    shared_legend(figure, columns=3, below=-0.02)
    figure.suptitle(f"{title}: {spread_in_words(rows['seeds'])}")
    return figure


def _panel(axis: Any, rows: pd.DataFrame, metric: str, methods: list[str]) -> None:
    """Tickets as lines, networks without a mask as horizontal lines; a star on the ticket that withstands most
    attacks.
    """
    epochs = sorted(set(rows["search_epoch"]) - {0})
    for (method, epoch), part_of in rows.groupby(["method", "search_epoch"]):
        part_of = part_of.sort_values("removed_percent")
        y, spread, style = part_of[f"{metric}_percent"], part_of[f"{metric}_std"], look(method, methods)
        if method in WITHOUT_MASK:
            mean, band = y.iloc[0], spread.fillna(0.0).iloc[0]
            axis.axhline(mean, color=style["color"], lw=1, ls="-" if method == "dense" else ":", label=method)
            axis.axhspan(mean - band, mean + band, color=style["color"], alpha=0.12, lw=0)
        else:
            label = f"{method} (epoch {epoch})" if epoch else method
            ls = ("-", "--", "-.", ":")[epochs.index(epoch) % 4] if epoch else "-"
            line(axis, part_of["remaining_percent"], y, spread, style | {"ls": ls}, label)
    tickets = rows[~rows["method"].isin(WITHOUT_MASK)]
    if len(tickets):
        best = tickets[tickets["aua_percent"] == tickets["aua_percent"].max()]
        winners(axis, best["remaining_percent"], best[f"{metric}_percent"], "most robust ticket")
    low, high = axis.get_ylim()  # clean accuracies lie close together; ten points at least, so that tenths look small
    axis.set_ylim(*((-2, 104) if metric == "aua" else (min(low, high - 10), high)))
