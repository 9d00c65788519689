"""The rare-gems figure; apart from the table, which a matter of style must not touch."""

from __future__ import annotations

from typing import Any

import pandas as pd

from winnow.tables.figures import line, look, pyplot, remaining_axis, shared_legend, spread_in_words, winners

CHECKS = {"reinit_acc": "1", "shuffle_acc": "2", "invert_acc": "3"}
OF_WORDS = {"perplexity_after": "perplexity\nafter fine-tuning", "perplexity_before": "perplexity\nbefore any training"}
PANELS = {"acc_after": "test accuracy (%)\nafter fine-tuning", "acc_before": "test accuracy (%)\nbefore any training"}


def plot(rows: pd.DataFrame, title: str) -> Any:
    """The figure of one experiment's rows of the table: a line a branch, after fine-tuning above and before it
    below, and of language models perplexities below that.
    """
    words = "perplexity_after_mean" in rows and rows["perplexity_after_mean"].notna().any()
    panels = {**PANELS, **OF_WORDS} if words else PANELS
    figure, axes = pyplot().subplots(len(panels), 1, figsize=(5.6, 3.0 * len(panels)), sharex=True)
    names = list(dict.fromkeys(rows["branch"]))
    for axis, (metric, label) in zip(axes, panels.items(), strict=True):
        mean = f"{metric}_mean" if metric.endswith("after") else metric
        for name in names:
            part_of = rows[rows["branch"] == name].sort_values("remaining_percent", ascending=False)
            x, style = part_of["remaining_percent"], look(name, names)
            line(axis, x, part_of[mean], part_of[f"{metric}_std"], style, name)
            for check, marker in CHECKS.items() if metric == "acc_after" else ():
                if part_of[check].notna().any():
                    what = f"{name}: {check.removesuffix('_acc')}"
                    axis.plot(x, part_of[check], color=style["color"], ls=":", lw=0.7, marker=marker, ms=8, label=what)
        won = rows[rows["is_gem"] == 1]
        if len(won):
            winners(axis, won["remaining_percent"], won[mean], "gem")
        if metric == "perplexity_before":
            axis.set_yscale("log")
        column = f"published_{metric}"
        if metric in PANELS and rows[column].notna().any():
            axis.plot(
                rows["remaining_percent"], rows[column], ls="", marker="_", ms=12, color="#777777", label="published"
            )
        axis.set_ylabel(label)
    remaining_axis(axes[-1], rows["remaining_percent"])
    shared_legend(figure, columns=3, below=-0.04)
    axes[0].set_title(f"{title}: {spread_in_words(rows['seeds'])}")
    return figure
