"""The double-win table: which tickets match the dense model under standard and adversarial transfer.

A ticket matches in a metric when its mean over seeds is at most `tolerance` percentage points below the dense mean;
without a tolerance, at most one standard deviation of the dense runs. It is a double-win ticket when SA matches after
standard transfer and SA and RA both match after adversarial transfer (Double-win tickets, ICML 2022).

A flag compares means, and says nothing of chance: `double_win_seeds` counts the seeds behind it (the fewer of the
ticket's and the dense model's), and `double_win_margin_se` tells by how many standard errors of the difference the
closest of its three comparisons holds (negative: is missed). With one seed there is no standard error, and the margin
stays empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from winnow.pipelines.double_win.config import Published
from winnow.pipelines.double_win.grid import Run
from winnow.tables.compare import least, margin, of_difference, standard_error

IDENTITY = [
    "source",
    "pretraining",
    "imp_regime",
    "method",
    "round",
    "removed_percent",
    "remaining_percent",
    "dataset",
    "fraction",
]
METRICS = [
    "std_sa",
    "std_ra",
    "std_corruption_sa",
    "adv_sa",
    "adv_ra",
    "adv_aa",
    "adv_l2_ra",
    "adv_corruption_sa",
    "adv_best_sa",
    "adv_best_sa_ra",
]
MATCHED = ["std_sa", "adv_sa", "adv_ra"]


def measured(run: Run, evaluation: dict[str, Any], autoattack: float | None = None) -> dict[str, float]:
    """The metrics of one run by column: everything adversarial from the best-RA checkpoint, so from one network."""
    if run.mode == "std":
        found = {"std_sa": evaluation["best_sa"]["sa"], "std_ra": evaluation["best_sa"]["ra"]}
        return found | _corrupted("std", evaluation["best_sa"])
    chosen, other = evaluation["best_ra"], evaluation["best_sa"]
    found = {"adv_sa": chosen["sa"], "adv_ra": chosen["ra"], "adv_best_sa": other["sa"], "adv_best_sa_ra": other["ra"]}
    optional = {"adv_aa": autoattack, "adv_l2_ra": chosen.get("l2_ra")}
    return found | _corrupted("adv", chosen) | {k: v for k, v in optional.items() if v is not None}


def _corrupted(mode: str, measured: dict[str, Any]) -> dict[str, float]:
    seen = measured.get("corruptions")
    return {f"{mode}_corruption_sa": sum(seen.values()) / len(seen)} if seen else {}


def table(
    runs: Iterable[Run],
    evaluation: Callable[[Run], dict[str, Any]],
    remaining_percent: Callable[[Run], float],
    tolerance: float | None,
    published: list[Published],
    autoattack: Callable[[Run], float | None] = lambda run: None,
) -> pd.DataFrame:
    """One row per (pre-training, ticket, dataset, fraction); `evaluation`, `autoattack` (accuracy in percent; None: not
    run) and `remaining_percent` read a run's artifacts.
    """
    found = [_row(run, remaining_percent(run)) | measured(run, evaluation(run), autoattack(run)) for run in runs]
    rows = pd.DataFrame(found)
    for metric in METRICS:
        if metric not in rows:
            rows[metric] = float("nan")
    # seeds may differ in the last weight of an imported ticket: identity is the ticket, percentages are means
    ticket = [c for c in IDENTITY if not c.endswith("_percent")]
    groups = rows.groupby(ticket, sort=False)
    means = groups[METRICS].mean().add_suffix("_mean")
    spreads = groups[METRICS].std(ddof=1).add_suffix("_std")
    percentages = groups[["removed_percent", "remaining_percent"]].mean()
    seeds = groups["run_seed"].nunique().rename("seeds")
    result = pd.concat([percentages, seeds, means, spreads], axis=1).reset_index()
    result = _compare(result, tolerance)
    result = _headline(result, published)
    order = [c for m in METRICS for c in (f"{m}_mean", f"{m}_std")]
    return result[[*IDENTITY, "seeds", *order, *[c for c in result if c not in {*IDENTITY, "seeds", *order}]]].round(6)


def _row(run: Run, remaining: float) -> dict[str, Any]:
    return {
        "source": run.source,
        "pretraining": run.pretraining,
        "imp_regime": run.regime,
        "method": run.method,
        "round": run.round,
        "removed_percent": 100.0 - remaining,
        "remaining_percent": remaining,
        "dataset": run.dataset,
        "fraction": float(run.percent) / 100,
        "run_seed": run.run_seed,
    }


def _compare(result: pd.DataFrame, tolerance: float | None) -> pd.DataFrame:
    same = ["source", "pretraining", "dataset", "fraction"]
    columns = [f"{m}_{s}" for m in MATCHED for s in ("mean", "std")]
    dense = result.loc[result["method"] == "dense", [*same, "seeds", *columns]]
    names = {f"{m}_mean": f"dense_{m}" for m in MATCHED} | {f"{m}_std": f"dense_{m}_std" for m in MATCHED}
    names["seeds"] = "dense_seeds"
    result = result.merge(dense.rename(columns=names), on=same, how="left")
    ticket, margins = result["method"] != "dense", {}
    for metric in MATCHED:
        allowed = result[f"dense_{metric}_std"] if tolerance is None else tolerance
        gap = result[f"dense_{metric}"] - result[f"{metric}_mean"]
        known = ticket & gap.notna() & (pd.Series(allowed, index=result.index).notna())
        result[f"{metric}_match"] = (gap <= allowed).astype("Int64").where(known)
        own = standard_error(result[f"{metric}_std"], result["seeds"])
        result[f"{metric}_gap_se"] = of_difference(
            own, standard_error(result[f"dense_{metric}_std"], result["dense_seeds"])
        )
        margins[metric] = margin(allowed - gap, result[f"{metric}_gap_se"]).where(known)
    flags = result[[f"{m}_match" for m in MATCHED]]
    result["double_win"] = flags.min(axis=1, skipna=False).astype("Int64")
    result["double_win_seeds"] = result[["seeds", "dense_seeds"]].min(axis=1).astype("Int64").where(ticket)
    result["double_win_margin_se"] = least(margins)
    return result.drop(columns=["dense_seeds", *(f"dense_{m}_std" for m in MATCHED)])


def _headline(result: pd.DataFrame, published: list[Published]) -> pd.DataFrame:
    """The sparsest double-win IMP ticket of each pre-training and task (full data), and the published one."""
    same = ["pretraining", "dataset", "fraction"]
    winners = result[(result["method"] == "imp") & (result["double_win"] == 1)]
    sparsest = winners.groupby(same)["removed_percent"].max().rename("sparsest_double_win_removed_percent")
    result = result.merge(sparsest.reset_index(), on=same, how="left")
    figures = {(p.pretraining, p.dataset): p.removed_percent for p in published}
    pairs = zip(result["pretraining"], result["dataset"], result["fraction"], strict=True)
    result["published_double_win_removed_percent"] = [
        figures.get((p, d), float("nan")) if f == 1 else float("nan") for p, d, f in pairs
    ]
    return result
