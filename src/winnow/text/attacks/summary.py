"""Figures of an attack from its rows (robust tickets, section 4.1); no torch here, tables use it too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts, and the paper's figures in percent of all examples.

    clean = (succeeded + failed) / all; aua (accuracy under attack) = failed / all; suc = (clean - aua) / clean;
    mean_queries over attacked examples (those classified right before); perturbed_percent: mean share of words changed
    over the successes. Figures without a denominator are None.
    """
    count = {s: sum(r["status"] == s for r in rows) for s in ("succeeded", "failed", "skipped")}
    attacked = [r for r in rows if r["status"] != "skipped"]
    won = [r for r in rows if r["status"] == "succeeded"]
    clean, aua = 100.0 * len(attacked) / len(rows), 100.0 * count["failed"] / len(rows)
    return {
        "examples": len(rows),
        "attacked": len(attacked),
        **count,
        "clean_percent": clean,
        "aua_percent": aua,
        "suc_percent": 100.0 * (clean - aua) / clean if attacked else None,
        "mean_queries": sum(r["queries"] for r in attacked) / len(attacked) if attacked else None,
        "perturbed_percent": 100.0 * sum(r["words_changed"] / r["words"] for r in won) / len(won) if won else None,
    }
