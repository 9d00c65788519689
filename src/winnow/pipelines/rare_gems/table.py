"""The rare-gems table: accuracy of each ticket before and after fine-tuning, beside its sanity checks.

A ticket is a rare gem when its accuracy before any weight training is well above chance, and its accuracy after
fine-tuning clearly beats every sanity check (Rare Gems, NeurIPS 2022, sections 3 and 5). Without checks the question
stays open.

`is_gem` compares means: `is_gem_seeds` counts the seeds behind it, and `is_gem_margin_se` tells by how many standard
errors the closer of its comparisons holds (negative: is missed). With one seed there is no standard error, and the
margin stays empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from winnow.pipelines.rare_gems.config import PublishedGem
from winnow.pipelines.rare_gems.grid import Cell
from winnow.tables.compare import least, margin, of_difference, standard_error

IDENTITY = ["experiment", "dataset", "arch", "branch", "algo", "target_remaining_percent"]
CHECKS = ["reinit", "shuffle", "invert"]
PERPLEXITIES = ("perplexity_before", "perplexity_after")  # of language models, whose accuracy is that of the next word


def measured(metrics: dict[str, Any], checks: dict[str, Any] | None) -> dict[str, float]:
    """The columns of one run from its metrics files."""
    found = {
        "remaining_percent": metrics["remaining_percent"],
        "acc_before": metrics["acc_before"],
        "acc_after": metrics["acc_after"],
        "acc_last": metrics["acc_last"],
        "chance": metrics.get("chance", 100.0 / metrics["num_classes"]),
    }
    if "perplexity_after" in metrics:
        found |= {name: metrics[name] for name in PERPLEXITIES}
    if "robust_acc_after" in metrics:
        found |= {"robust_acc_before": metrics["robust_acc_before"], "robust_acc_after": metrics["robust_acc_after"]}
    for name, values in (checks or {}).get("checks", {}).items():
        found |= {f"{name}_acc": values["acc_after"], f"{name}_acc_before": values["acc_before"]}
    return found


def table(
    cells: Iterable[Cell],
    read: Callable[[str], dict[str, Any]],
    gem_margin: float,
    gem_before: float,
    published: list[PublishedGem],
) -> pd.DataFrame:
    """One row per ticket, means and standard deviations over seeds; `read(path)` gives a metrics file.

    `gem_margin` and `gem_before` are percentage points: over each check after fine-tuning, and over chance before.
    """
    rows = pd.DataFrame([
        dict(zip(IDENTITY, (c.experiment, c.dataset, c.arch, c.branch, c.algo, c.target), strict=True))
        | {"seed": c.seed}
        | measured(read(c.metrics), read(c.checks) if c.checks else None)
        for c in cells
    ])  # fmt: skip
    for name in (
        *(f"{c}_acc" for c in CHECKS),
        *(f"{c}_acc_before" for c in CHECKS),
        "robust_acc_before",
        "robust_acc_after",
        *PERPLEXITIES,
    ):
        if name not in rows:
            rows[name] = float("nan")
    groups = rows.groupby(IDENTITY, sort=False)
    result = groups.agg(
        remaining_percent=("remaining_percent", "mean"),
        seeds=("seed", "nunique"),
        chance=("chance", "mean"),
        acc_before=("acc_before", "mean"),
        acc_before_std=("acc_before", "std"),
        acc_after_mean=("acc_after", "mean"),
        acc_after_std=("acc_after", "std"),
        acc_last_mean=("acc_last", "mean"),
        **{f"{c}_acc": (f"{c}_acc", "mean") for c in CHECKS},
        **{f"{c}_acc_std": (f"{c}_acc", "std") for c in CHECKS},
        **{f"{c}_acc_before": (f"{c}_acc_before", "mean") for c in CHECKS},
        robust_acc_before=("robust_acc_before", "mean"),
        robust_acc_after_mean=("robust_acc_after", "mean"),
        perplexity_before=("perplexity_before", "mean"),
        perplexity_before_std=("perplexity_before", "std"),
        perplexity_after_mean=("perplexity_after", "mean"),
        perplexity_after_std=("perplexity_after", "std"),
    ).reset_index()
    result["is_gem"] = _is_gem(result, gem_margin, gem_before)
    result["is_gem_seeds"] = result["seeds"].astype("Int64").where(result["is_gem"].notna())
    result["is_gem_margin_se"] = _margin(result, gem_margin, gem_before)
    figures = {(p.experiment, p.branch, p.remaining_percent): p for p in published}
    keys = list(zip(result["experiment"], result["branch"], result["target_remaining_percent"], strict=True))
    for column, attribute in (("published_acc_before", "acc_before"), ("published_acc_after", "acc_after")):
        result[column] = pd.Series([getattr(figures.get(k), attribute, None) for k in keys], dtype="float64")
    return result.drop(columns="chance").round(6)


def _is_gem(result: pd.DataFrame, margin: float, before: float) -> pd.Series:
    checks = result[[f"{c}_acc" for c in CHECKS]]
    beats = (result["acc_after_mean"] > checks.max(axis=1) + margin) & (
        result["acc_before"] >= result["chance"] + before
    )
    return beats.astype("Int64").where(checks.notna().any(axis=1))


def _margin(result: pd.DataFrame, above_checks: float, above_chance: float) -> pd.Series:
    """The least of the margins over the checks that were run, and over chance, in standard errors."""
    after = standard_error(result["acc_after_std"], result["seeds"])
    found = {}
    for check in CHECKS:
        error = of_difference(after, standard_error(result[f"{check}_acc_std"], result["seeds"]))
        found[check] = margin(result["acc_after_mean"] - result[f"{check}_acc"] - above_checks, error)
    before = standard_error(result["acc_before_std"], result["seeds"])
    found["chance"] = margin(result["acc_before"] - result["chance"] - above_chance, before)
    return least(found, skipna=True).where(result["is_gem"].notna())
