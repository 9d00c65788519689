"""The robust-ticket table: accuracy with and without attack, for each network and attacker, means over seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from winnow.pipelines.robust_bert.grid import Run

IDENTITY = ["task", "model", "method", "removed_percent", "search_epoch", "retrain_epoch", "attacker"]
MEANS = ["clean_percent", "aua_percent", "suc_percent", "mean_queries", "perturbed_percent", "test_accuracy_percent"]


def table(
    runs: Iterable[Run], figures: Callable[[Run], dict[str, Any]], removed_percent: Callable[[Run], float]
) -> pd.DataFrame:
    """One row per (task, method, sparsity, search epoch, retraining epoch, attacker).

    `examples` and `attacked` are sums over the seeds, the rest means over them, with the standard deviation (n - 1) of
    clean_percent and aua_percent beside; a figure without a denominator in every seed (no success, no attacked example)
    is empty.
    """
    rows = []
    for run in runs:
        found = figures(run)
        identity = {"task": run.task, "model": run.model, "method": run.method, "search_epoch": run.search_epoch}
        identity["retrain_epoch"] = run.retrain_epoch
        measured = {k: found[k] for k in ("examples", "attacked", *MEANS)}
        rows.append(
            {
                **identity,
                "removed_percent": removed_percent(run),
                "attacker": run.attacker,
                "seed": run.seed,
                **measured,
            }
        )
    frame = pd.DataFrame(rows).astype(dict.fromkeys(MEANS, float))
    groups = frame.groupby(IDENTITY, sort=False)
    means = groups[MEANS].mean()
    spread = groups[["clean_percent", "aua_percent"]].std().rename(columns=lambda c: c.replace("_percent", "_std"))
    result = (
        groups[["examples", "attacked"]].sum().join(groups["seed"].nunique().rename("seeds")).join(means).join(spread)
    )
    first = [name for name in IDENTITY if name != "retrain_epoch"]
    order = [*first, "attacked", "seeds", *MEANS[:5], "clean_std", "aua_std", "examples", MEANS[5], "retrain_epoch"]
    return result.reset_index()[order]
