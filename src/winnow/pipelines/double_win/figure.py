"""The double-win figure; apart from the table, which a matter of style must not touch."""

from __future__ import annotations

from typing import Any

import pandas as pd

from winnow.tables.figures import line, look, panels, shared_legend, spread_in_words, winners

PANELS = {
    "std_sa": "SA (%)\nstandard transfer",
    "adv_sa": "SA (%)\nadversarial transfer",
    "adv_ra": "RA (%)\nadversarial transfer",
}


def plot(rows: pd.DataFrame, title: str) -> Any:
    """The figure of one downstream's rows of the table: SA and RA against the remaining percentage, a column a
    pre-training.
    """
    figure = panels(rows, "pretraining", "pre-training: ", PANELS, _panel, height=6.6)
    shared_legend(figure, columns=3, below=-0.02)
    figure.suptitle(f"{title}: {spread_in_words(rows['seeds'])}")
    return figure


def _panel(axis: Any, rows: pd.DataFrame, metric: str, methods: list[str]) -> None:
    """One panel: for each method and IMP regime a line from the dense model, with error bars; the dense spread as a
    band.
    """
    dense = rows[rows["method"] == "dense"].iloc[0]
    mean, spread = dense[f"{metric}_mean"], dense[f"{metric}_std"] if dense["seeds"] > 1 else 0.0
    shade = look("dense", methods)["color"]
    axis.axhline(mean, color=shade, lw=1, label="dense")
    axis.axhspan(mean - spread, mean + spread, color=shade, alpha=0.12, lw=0)
    for (method, regime), part_of in rows[rows["method"] != "dense"].groupby(["method", "imp_regime"]):
        part_of = part_of.sort_values("remaining_percent", ascending=False)
        label = method if regime == "none" else f"{method} ({regime})"
        style = look(method, methods) | {"ls": "--" if regime == "adv" else "-"}
        x, y = part_of["remaining_percent"], part_of[f"{metric}_mean"]
        axis.plot([100.0, x.iloc[0]], [mean, y.iloc[0]], color=style["color"], ls=style["ls"], lw=1.2)
        line(axis, x, y, part_of[f"{metric}_std"], style, label)
    won = rows[rows["double_win"] == 1]
    if len(won):
        winners(axis, won["remaining_percent"], won[f"{metric}_mean"], "double-win ticket")
    published = rows["published_double_win_removed_percent"].dropna()
    if len(published):
        axis.axvline(100.0 - published.iloc[0], color="#777777", ls=":", lw=1, label="sparsest double win published")
