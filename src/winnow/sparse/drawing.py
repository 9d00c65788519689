"""The figure of a ticket's speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.tables.figures import MORE, pyplot, save

if TYPE_CHECKING:
    from winnow.sparse.speed import Prediction


def speed(
    rows: Sequence[Mapping[str, Any]], curves: Mapping[tuple[int, int], Prediction], remaining_percent: float, path: Path
) -> None:
    """Speed-up against the remaining percentage: lines by the rule, points with quartiles as measured."""
    figure, axis = pyplot().subplots(figsize=(5.6, 3.8))
    for row, shade in zip(rows, MORE * len(rows), strict=False):
        curve = curves[row["batch"], row["threads"]].curve
        label = f"batch {row['batch']}, {row['threads']} thread{'s' * (row['threads'] > 1)}"
        axis.plot(list(curve), list(curve.values()), color=shade, lw=1.1, ls="--")
        spread = [[max(0.0, row["speedup"] - row["low"])], [max(0.0, row["high"] - row["speedup"])]]
        axis.errorbar([remaining_percent], [row["speedup"]], spread, color=shade, marker="o", ms=4, capsize=2, label=label)
    axis.axhline(1.0, color="#333333", lw=0.8)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("remaining weights (%, logarithmic)")
    axis.set_ylabel("times as fast as dense; dashed: by the rule")
    axis.legend(fontsize=7)
    save(figure, path)
