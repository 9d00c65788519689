"""The figure of a ticket's speed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow.tables.figures import MORE, pyplot, save


def speed(found: Mapping[str, Any], title: str, *paths: Path) -> None:
    """Speed-up against the remaining percentage: lines by the rule, points with quartiles as measured."""
    figure, axis = pyplot().subplots(figsize=(5.6, 3.8))
    for row, curve, (shade, marker) in zip(found["rows"], found["curves"], MORE * len(found["rows"]), strict=False):
        label = f"batch {row['batch']}, {row['threads']} thread{'s' * (row['threads'] > 1)}"
        axis.plot(*zip(*curve["speedup"], strict=True), color=shade, lw=1.1, ls="--")
        spread = [[max(0.0, row["speedup"] - row["low"])], [max(0.0, row["high"] - row["speedup"])]]
        at = [found["remaining_percent"]]
        axis.errorbar(at, [row["speedup"]], spread, color=shade, marker=marker, ms=4, capsize=2, label=label)
    axis.axhline(1.0, color="#333333", lw=0.8)
    axis.set_xscale("log")
    axis.set_yscale("log")
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_formatter("{x:g}")
        one.set_minor_formatter("{x:g}" if one is axis.yaxis else "")
    axis.set_xlabel("remaining weights (%, logarithmic)")
    axis.set_ylabel("times as fast as dense; dashed: by the rule")
    axis.set_title(title)
    axis.legend(fontsize=7)
    save(figure, *paths)
