"""Flags tell how far they hold: standard errors and seeds beside them, and a word before any job where they will be
empty.
"""

from __future__ import annotations

import pandas as pd
import pytest
import yaml
from conftest import ROOT

from winnow.config.notices import notices
from winnow.config.root import load
from winnow.pipelines.double_win.grid import Grid as TransferGrid
from winnow.pipelines.double_win.table import table as double_win
from winnow.pipelines.rare_gems.grid import Cell
from winnow.pipelines.rare_gems.table import table as rare_gems
from winnow.schema import parse
from winnow.tables.compare import least, margin, of_difference, standard_error

RUNS = {  # ticket: (std_sa, adv_sa, adv_ra) of seeds 0, 1, 2, worked out by hand below
    "dense": [(90, 80, 50), (92, 80, 50), (94, 80, 50)],
    "imp-std-1": [(91, 79, 54), (92, 80, 56), (93, 81, 58)],
    "imp-std-2": [(80, 79, 54), (82, 80, 56), (84, 81, 58)],
}


def transfers(seeds, tolerance):
    branch = {"name": "std", "imp_regimes": ["std"], "methods": ["dense", "imp"], "extra": []}
    grid = parse(TransferGrid, {"source": "s", "branches": [branch], "tasks": [{"name": "d", "fractions": [1.0]}],
                                "rounds": [1, 2], "seeds": seeds, "source_seed": None})  # fmt: skip

    def evaluation(run):
        std_sa, adv_sa, adv_ra = RUNS[run.ticket][run.run_seed]
        best = {"sa": adv_sa, "ra": adv_ra}
        return (
            {"best_sa": {"sa": std_sa, "ra": 0.0}, "best_ra": best}
            if run.mode == "adv"
            else {"best_sa": {"sa": std_sa, "ra": 0}}
        )

    rows = double_win(grid.runs(), evaluation, lambda r: {"dense": 100.0}.get(r.ticket, 50.0), tolerance, [])
    return rows.set_index(rows["method"] + rows["round"].astype(str))


def test_a_match_tells_by_how_many_standard_errors_it_holds():
    rows = transfers([0, 1, 2], 1.0)
    # std_sa: 92 against 92, deviations 1 and 2: error sqrt(1/3 + 4/3), one point of tolerance above it
    assert rows.loc["imp1", "std_sa_gap_se"] == pytest.approx((5 / 3) ** 0.5, abs=1e-6)
    # adv_sa: 80 against 80 without spread, deviation 1: one point over 1/sqrt(3) = 1.73 errors; adv_ra: 7 points, far
    assert rows.loc["imp1", "double_win_margin_se"] == pytest.approx(1 / (5 / 3) ** 0.5, abs=1e-6)
    assert rows.loc["imp1", "double_win"] == 1 and rows.loc["imp1", "double_win_seeds"] == 3
    # 82 against 92, deviations 2 and 2: nine points missed over sqrt(8/3)
    assert rows.loc["imp2", "double_win_margin_se"] == pytest.approx(-9 / (8 / 3) ** 0.5, abs=1e-6)
    assert rows.loc["dense0", ["double_win_seeds", "double_win_margin_se"]].isna().all()


def test_one_seed_has_a_flag_and_no_margin():
    row = transfers([0], 1.0).loc["imp1"]
    assert row["double_win"] == 1 and row["double_win_seeds"] == 1
    assert pd.isna(row["double_win_margin_se"]) and pd.isna(row["std_sa_gap_se"])


def test_standard_errors_and_the_least_margin_by_hand():
    errors = standard_error(pd.Series([2.0, 2.0, 2.0]), pd.Series([1, 4, 16]))
    assert pd.isna(errors[0]) and list(errors[1:]) == [1.0, 0.5]
    assert list(of_difference(pd.Series([3.0]), pd.Series([4.0]))) == [5.0]
    assert list(margin(pd.Series([3.0, -1.0]), pd.Series([2.0, 4.0]))) == [1.5, -0.25]
    nan, endless = float("nan"), float("inf")
    margins = {"a": pd.Series([1.0, nan, endless, -endless]), "b": pd.Series([-2.0, 1.0, endless, 1.0])}
    assert least(margins).tolist()[0] == -2.0 and least(margins)[1:].isna().all()
    assert least(margins, skipna=True).tolist()[:2] == [-2.0, 1.0]


def gems(seeds, reinit):
    """One ticket: 60, 62, 64 % after, 30 % before over a chance of 10 %; `reinit` by seed, shuffle 40 % always."""
    cells = [Cell("e", "d", "a", "b", "hc_iter", 5.0, 0, True, s) for s in seeds]

    def read(name):
        *_, folder, kind, _ = name.split("/")
        seed = int(folder[1:])
        if kind == "tuned":
            found = {"acc_before": 30.0 + seed, "acc_after": 60.0 + 2 * seed, "acc_last": 0.0}
            return {**found, "remaining_percent": 5.0, "num_classes": 10}
        checks = {"reinit": reinit[seed], "shuffle": 40.0}
        return {"checks": {n: {"acc_after": v, "acc_before": 0.0} for n, v in checks.items()}}

    return rare_gems(cells, read, 1.0, 10.0, []).iloc[0]


def test_a_gem_tells_by_how_many_standard_errors_it_beats_the_best_check():
    row = gems([0, 1, 2], [56.0, 58.0, 60.0])
    # 62 against 58 and a margin of 1: three points over sqrt(4/3 + 4/3); over chance: 11 points over sqrt(1/3)
    assert row["is_gem"] == 1 and row["is_gem_seeds"] == 3
    assert row["is_gem_margin_se"] == pytest.approx(3 / (8 / 3) ** 0.5, abs=1e-6)
    missed = gems([0, 1, 2], [62.0, 64.0, 66.0])
    assert missed["is_gem"] == 0 and missed["is_gem_margin_se"] == pytest.approx(-3 / (8 / 3) ** 0.5, abs=1e-6)


def test_a_gem_of_one_seed_says_so():
    row = gems([0], [29.0])
    assert row["is_gem"] == 1 and row["is_gem_seeds"] == 1 and pd.isna(row["is_gem_margin_se"])


@pytest.mark.parametrize(
    ("seeds", "tolerance", "said"),
    [([0], None, "will be empty"), ([0], 1.0, "without a standard error"), ([0, 1], None, None), ([0, 1], 1.0, None)],
)
def test_what_will_be_left_open_is_said_before_any_job(seeds, tolerance, said):
    config = yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())
    config["double_win"] |= {"seeds": seeds, "tolerance": tolerance}
    found = [n for n in notices(load({"double_win": config["double_win"]})) if n.startswith("double_win")]
    assert (len(found) == 1 and said in found[0]) if said else not found
