"""The figure of how two tickets relate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow.tables.figures import pyplot, save


def relation(found: Mapping[str, Any], title: str, *paths: Path) -> None:
    """Panels: loss and accuracy between the two networks; of tickets, first the overlap by layer against chance."""
    rows = found["overlap"][:-1]
    count = 3 if rows else 2
    figure, axes = pyplot().subplots(1, count, figsize=(4.2 * count, 3.6), layout="constrained")
    losses, accuracies = axes[-2:]
    if rows:
        axes[0].plot([r["jaccard"] for r in rows], marker="o", ms=3, lw=1.1, label="Jaccard index")
        axes[0].plot([r["jaccard_by_chance"] for r in rows], ls="--", lw=1.1, label="of random masks")
        axes[0].set_xlabel("layer")
        axes[0].set_ylabel("overlap of the kept weights")
        axes[0].set_ylim(bottom=0)
        axes[0].locator_params(axis="x", integer=True)
        axes[0].legend(fontsize=7)
    for axis, name in ((losses, "loss"), (accuracies, "acc")):
        for split, style in (("train", "--"), ("test", "-")):
            points = [(p["at"], p[f"{split}_{name}"]) for p in found["path"]]
            axis.plot(*zip(*points, strict=True), ls=style, marker="o", ms=3, lw=1.1, label=split)
        axis.set_xlabel("position between the networks")
        axis.legend(fontsize=7)
    figure.suptitle(title, fontsize=10)
    losses.set_ylabel("cross-entropy")
    accuracies.set_ylabel("accuracy (%)")
    save(figure, *paths)
