"""What two tickets have in common, layer by layer, against what chance would give them."""

from __future__ import annotations

from math import nan, sqrt
from typing import Any

import numpy as np

from winnow.errors import WinnowError
from winnow.ticket import Ticket


def overlap(one: Ticket, other: Ticket) -> list[dict[str, Any]]:
    """A row for each layer and a last row `total`: weights kept by both, Jaccard index, what random masks have,
    standard deviations.

    Random: masks of the same counts in each layer, drawn independently; the number kept by both is then hypergeometric.
    jaccard_by_chance is the index at its mean, deviations how many of its standard deviations lie between (NaN where it
    has none). Raises WinnowError when the tickets are not of the same layers.
    """
    if {k: m.shape for k, m in one.arrays.items()} != {k: m.shape for k, m in other.arrays.items()}:
        odd = sorted(set(one.arrays) ^ set(other.arrays)) or [
            k for k, m in one.arrays.items() if m.shape != other.arrays[k].shape
        ]
        raise WinnowError(f"tickets: {odd[0]} is not the same weight in both; compare tickets of one architecture")
    rows, expected, variance = [], 0.0, 0.0
    for name, mask in one.arrays.items():
        total, a, b = mask.size, int(mask.sum()), int(other.arrays[name].sum())
        mean = a * b / total
        spread = mean * (total - a) * (total - b) / (total * (total - 1)) if total > 1 else 0.0
        rows.append(_row(name, total, a, b, int(np.sum(mask & other.arrays[name])), mean, spread))
        expected, variance = expected + mean, variance + spread
    total, a, b, both = (sum(row[k] for row in rows) for k in ("weights", "kept", "kept_other", "kept_by_both"))
    return [*rows, _row("total", total, a, b, both, expected, variance)]


def _row(name: str, total: int, a: int, b: int, both: int, mean: float, variance: float) -> dict[str, Any]:
    def index(common: float) -> float:
        return common / (a + b - common) if a + b else nan

    return {
        "name": name, "weights": total, "kept": a, "kept_other": b, "kept_by_both": both, "jaccard": index(both),
        "jaccard_by_chance": index(mean), "deviations": (both - mean) / sqrt(variance) if variance else nan,
    }  # fmt: skip
