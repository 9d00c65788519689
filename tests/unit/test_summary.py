"""Verdicts in words on tables made up so that every answer is known."""

from __future__ import annotations

from winnow.pipelines.double_win.summary import summary as double_win
from winnow.pipelines.rare_gems.summary import summary as rare_gems
from winnow.pipelines.robust_bert.summary import summary as robust_bert
from winnow.tables.charts import density


def transfer(method, removed, won="", margin="", seeds="3", published=""):
    return {
        "pretraining": "adv", "method": method, "imp_regime": "none", "dataset": "down", "fraction": "1.0",
        "removed_percent": removed,
        "std_sa_mean": "90.0", "std_sa_std": "1.7320508", "adv_sa_mean": "80", "adv_sa_std": "", "adv_ra_mean": "50",
        "adv_ra_std": "",
        "seeds": seeds, "double_win": won, "double_win_margin_se": margin, "double_win_seeds": seeds if won else "",
        "published_double_win_removed_percent": published,
    }  # fmt: skip


def test_the_sparsest_double_win_beside_the_published_with_its_sureness():
    rows = [transfer("dense", "0"), transfer("imp", "20", "1", "3.1", published="89.26"),
     transfer("imp", "36", "1", "0.4", published="89.26"),
            transfer("imp", "48.8", "0", "-2.2", published="89.26")]  # fmt: skip
    made = double_win(rows)
    assert made.verdicts == [
        "down: the sparsest double-win ticket is adv, imp with 36 % removed (within chance: 0.4 standard errors, 3 "
        "seeds); 2 of 3 tickets are double-win"
    ]
    assert len(made.header) == 8
    assert made.rows == [
        ["adv, dense", "0", "", "90.0 ± 1.0", "80.0", "50.0", "3", ""],
        ["adv, imp", "36", "89.3", "90.0 ± 1.0", "80.0", "50.0", "3", "yes (+0.4 SE)"],
    ]
    assert made.won == {1} and made.more == 2


def test_what_is_not_known_is_said():
    (one,) = double_win([transfer("dense", "0", seeds="1"), transfer("imp", "20", "1", seeds="1")]).verdicts
    assert "1 seed, so nothing is known of chance" in one
    (none,) = double_win([transfer("dense", "0"), transfer("imp", "20", "0", "-1.0")]).verdicts
    assert none == "down: none of 1 tickets is double-win"
    (open_,) = double_win([transfer("dense", "0", seeds="1"), transfer("imp", "20", seeds="1")]).verdicts
    assert "not decided" in open_


def attacked(method, removed, aua, deviation, attacker="pwws"):
    return {"task": "t", "attacker": attacker, "method": method, "removed_percent": removed, "clean_percent": "99",
     "clean_std": "",
            "aua_percent": aua, "aua_std": deviation, "mean_queries": "12.34", "seeds": "4"}  # fmt: skip


def test_the_most_robust_ticket_is_compared_with_the_dense_model():
    rows = [attacked("dense", "0", "50", "6"), attacked("robust_ticket", "30", "75", "8"),
     attacked("robust_ticket", "50", "70", "8"),
            attacked("random_ticket", "30", "20", "1"), attacked("freelb", "0", "90", "1")]  # fmt: skip
    made = robust_bert(rows)
    # errors 8/2 and 6/2: 25 points over 5
    assert made.verdicts == [
        "t, pwws: the best ticket, robust_ticket with 30 % removed, keeps 75.0 % under attack, the dense model 50.0 "
        "%: +25.0 points (clear: 5.0 standard errors, 4 seeds)"
    ]
    assert [r[1] for r in made.rows] == ["robust_ticket", "dense", "freelb", "random_ticket"] and made.won == {0}
    assert made.rows[0][4] == "75.0 ± 4.0" and len(made.header) <= 8


def test_gems_are_told_by_their_sparsest():
    def gem(branch, remaining, after, check, flag, margin):
        return {"experiment": "e", "branch": branch, "remaining_percent": remaining, "acc_before": "60",
         "acc_before_std": "", "seeds": "2",
                "acc_after_mean": after, "acc_after_std": "", "reinit_acc": check, "shuffle_acc": "", "invert_acc": "",
                "is_gem": flag,
                "is_gem_margin_se": margin, "is_gem_seeds": "2" if flag else "",
                "published_acc_after": "77.89"}  # fmt: skip

    made = rare_gems([gem("m", "20", "90", "80", "1", "9"), gem("m", "5", "85", "80", "1", "4.5"),
      gem("random", "5", "88", "", "", ""),
                      gem("m", "1", "70", "70", "0", "-1")])  # fmt: skip
    assert made.verdicts == [
        "e: the sparsest gem is m with 5 % of the weights: 60.0 % before any training, 85.0 % after, its best sanity "
        "check 80.0 % (clear: 4.5 standard errors, 2 seeds); 2 of 3 checked tickets are gems"
    ]
    assert [r[0] for r in made.rows] == ["m", "m", "m", "random"] and made.won == {0, 1} and made.rows[0][4] == "77.9"


def test_bars_of_a_ticket_are_as_high_as_its_layers_are_dense():
    chart = density([("conv1", 100.0), ("conv2", 25.0), ("conv3", 0.0)], 40.0)
    assert 'height="120.0"' in chart and 'height="30.0"' in chart and 'height="0.0"' in chart
    assert "<title>conv2: 25.00 %</title>" in chart and "40.00 %" in chart
