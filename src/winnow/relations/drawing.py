"""The figure of how two tickets relate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow.tables.figures import pyplot, save


def relation(found: Mapping[str, Any], title: str, *paths: Path) -> None:
    """Three panels: overlap by layer against chance, and loss and accuracy between the two networks."""
    figure, (layers, losses, accuracies) = pyplot().subplots(1, 3, figsize=(12.5, 3.6))
    rows = found["overlap"][:-1]
    layers.plot([r["jaccard"] for r in rows], marker="o", ms=3, lw=1.1, label="Jaccard index")
    layers.plot([r["jaccard_by_chance"] for r in rows], ls="--", lw=1.1, label="of random masks")
    layers.set_xlabel("layer")
    layers.set_ylabel("overlap of the kept weights")
    layers.legend(fontsize=7)
    for axis, name in ((losses, "loss"), (accuracies, "acc")):
        for split, style in (("train", "--"), ("test", "-")):
            points = [(p["at"], p[f"{split}_{name}"]) for p in found["path"]]
            axis.plot(*zip(*points, strict=True), ls=style, marker="o", ms=3, lw=1.1, label=split)
        axis.set_xlabel("position between the networks")
        axis.legend(fontsize=7)
    losses.set_title(title)
    losses.set_ylabel("cross-entropy")
    accuracies.set_ylabel("accuracy (%)")
    save(figure, *paths)
