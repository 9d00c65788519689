"""The double-win table on figures made up so that every answer is known."""

from __future__ import annotations

import pandas as pd
import pytest

from winnow.pipelines.double_win.config import Published
from winnow.pipelines.double_win.grid import Grid
from winnow.pipelines.double_win.table import table
from winnow.schema import parse

ACCURACIES = {  # ticket: (std_sa, adv_sa, adv_ra) of seeds 0 and 1
    "dense": [(90, 80, 50), (92, 82, 54)],
    "imp-std-1": [(91, 81, 52), (91, 81, 52)],
    "imp-std-2": [(90, 80, 48), (90, 80, 50)],
    "random-std-1": [(80, 70, 40), (82, 72, 42)],
    "random-std-2": [(60, 50, 20), (62, 52, 22)],
}
REMAINING = {"dense": 100.0, "1": 80.0, "2": 64.0}


def grid(**changes):
    branch = {"name": "std", "imp_regimes": ["std"], "methods": ["dense", "imp", "random"], "extra": []}
    keys = {
        "source": "src", "branches": [branch], "tasks": [{"name": "down", "fractions": [1.0]}],
        "rounds": [1, 2], "seeds": [0, 1], "source_seed": None,
    }  # fmt: skip
    return parse(Grid, keys | changes)


def evaluation(run):
    std_sa, adv_sa, adv_ra = ACCURACIES[run.ticket][run.run_seed]
    if run.mode == "std":
        return {"best_sa": {"sa": std_sa, "ra": 1.0}}
    best = {"sa": adv_sa, "ra": adv_ra, "corruptions": {"a": 10.0, "b": 20.0}}
    return {"best_sa": {"sa": adv_sa + 1, "ra": 0.0}, "best_ra": best}


def made(tolerance, **changes):
    published = [parse(Published, {"pretraining": "std", "dataset": "down", "removed_percent": 89.26})]
    rows = table(
        grid(**changes).runs(), evaluation, lambda r: REMAINING[r.ticket.split("-")[-1]], tolerance, published,
        lambda r: ACCURACIES[r.ticket][r.run_seed][2] - 2.0 if r.mode == "adv" else None,
    )  # fmt: skip
    return rows.set_index(rows["method"] + rows["round"].astype(str))


def test_means_spreads_and_flags():
    rows = made(None)
    assert list(rows.index) == ["dense0", "imp1", "random1", "imp2", "random2"]  # the grid's order
    dense = rows.loc["dense0"]
    assert (dense["std_sa_mean"], dense["adv_ra_mean"], dense["seeds"]) == (91, 52, 2)
    assert dense["std_sa_std"] == pytest.approx(2**0.5) and pd.isna(dense["double_win"])
    assert list(rows.loc["imp1", ["std_sa_match", "adv_sa_match", "adv_ra_match", "double_win"]]) == [1, 1, 1, 1]
    # round 2: 1 point below in SA (std of dense 1.41), 3 below in RA (std of dense 2.83)
    assert list(rows.loc["imp2", ["std_sa_match", "adv_sa_match", "adv_ra_match", "double_win"]]) == [1, 1, 0, 0]
    assert rows.loc["random1", "double_win"] == 0
    assert rows.loc["imp2", "adv_aa_mean"] == 47 and rows.loc["imp2", "adv_corruption_sa_mean"] == 15
    assert rows.loc["imp2", "removed_percent"] == 36 and rows.loc["imp2", "dense_adv_ra"] == 52


def test_the_headline_is_the_sparsest_double_win_beside_the_published():
    assert set(made(None)["sparsest_double_win_removed_percent"]) == {20.0}
    assert set(made(3.0)["sparsest_double_win_removed_percent"]) == {36.0}
    assert set(made(3.0)["published_double_win_removed_percent"]) == {89.26}


def test_one_seed_without_tolerance_claims_nothing():
    rows = made(None, seeds=[0])
    assert rows["double_win"].isna().all() and rows["std_sa_match"].isna().all()
    assert made(1.0, seeds=[0]).loc["imp1", "double_win"] == 1


def test_a_shared_source_seed_is_one_chain_for_all_runs():
    runs = list(grid(source_seed=7).runs())
    assert {r.seed for r in runs} == {7} and {r.run_seed for r in runs} == {0, 1}
    assert "/s7/tickets/imp-std-1.mask.safetensors" in next(r.mask for r in runs if r.ticket == "imp-std-1")


def test_numbers_not_strings(tmp_path):
    made(None).to_csv(tmp_path / "t.csv", index=False)
    back = pd.read_csv(tmp_path / "t.csv")
    text = [c for c in back if back[c].dtype == object or str(back[c].dtype).startswith("str")]
    assert text == ["source", "pretraining", "imp_regime", "method", "dataset"]
