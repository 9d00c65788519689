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


def test_without_a_double_win_the_sparsest_imp_ticket_is_shown_else_the_sparsest():
    rows = [transfer("dense", "0"), transfer("imp", "36", "0", "-1"), transfer("imp", "20", "0", "-1"),
            transfer("omp", "90", "0", "-1")]  # fmt: skip
    assert [r[:2] for r in double_win(rows).rows] == [["adv, dense", "0"], ["adv, imp", "36"]]
    alone = [transfer("random", "20", "0", "-1"), transfer("random", "0", "0", "-1"), transfer("omp", "10", "0", "-1")]
    made = double_win(alone)
    assert [r[:2] for r in made.rows] == [["adv, random", "20"]] and (made.won, made.more) == (set(), 2)
    won = [transfer("imp", "36", "1", "1"), transfer("omp", "36", "1", "1"), transfer("random", "20", "1", "1")]
    assert "is adv, imp with 36 %" in double_win(won).verdicts[0]  # of equals the iterative one
    tasks = [{**transfer(m, "20", "", ""), "dataset": f"d{n}"} for n in range(6) for m in ("dense", "imp")]
    made = double_win(tasks)
    assert len(made.rows) == 8 and made.more == 4 and made.rows[2][0] == "adv, dense → d1" and len(made.verdicts) == 6
    half = double_win([{**transfer("imp", "20", "0"), "fraction": "0.5"}]).verdicts
    assert half == ["down, 50 % of its training data: none of 1 tickets is double-win"]


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


def test_columns_are_what_their_heads_say():
    gem = {"experiment": "e", "branch": "b", "remaining_percent": "5", "acc_before": "60", "acc_before_std": "2",
           "acc_after_mean": "85", "acc_after_std": "4", "published_acc_before": "11", "published_acc_after": "77",
           "reinit_acc": "70", "shuffle_acc": "71", "invert_acc": "69", "seeds": "4", "is_gem": "",
           "is_gem_margin_se": "", "is_gem_seeds": ""}  # fmt: skip
    made = rare_gems([gem])
    assert made.verdicts == ["e: open: no branch asks for the sanity checks"]
    assert dict(zip(made.header, made.rows[0], strict=True)) == {
        "branch": "b", "remaining %": "5", "before": "60.0 ± 1.0", "after": "85.0 ± 2.0", "published": "77",
        "best check": "71.0", "seeds": "4", "gem": "",
    }  # fmt: skip
    none = rare_gems([gem | {"is_gem": "0", "is_gem_seeds": "4", "is_gem_margin_se": "-3"}])
    assert none.verdicts == ["e: none of 1 checked tickets is a gem"] and none.rows[0][-1] == "no (-3.0 SE)"
    many = rare_gems(
        [gem | {"experiment": x, "branch": f"{n}", "acc_after_mean": f"{n}"} for x in "ab" for n in range(5)]
    )
    assert [r[0] for r in many.rows] == ["a: 4", "a: 3", "a: 2", "b: 4", "b: 3", "b: 2"] and many.more == 4
    row = dict(zip(robust_bert([attacked("dense", "0", "50", "6")]).header,
                   robust_bert([attacked("dense", "0", "50", "6")]).rows[0], strict=True))  # fmt: skip
    assert row == {"task, attacker": "t, pwws", "network": "dense", "removed %": "0", "clean": "99.0",
                   "under attack": "50.0 ± 3.0", "queries": "12.3", "seeds": "4"}  # fmt: skip


def test_what_cannot_be_compared_is_said():
    (alone,) = robust_bert([attacked("dense", "0", "50", "6")]).verdicts
    assert alone == "t, pwws: no ticket beside a dense model to compare with"
    (one,) = robust_bert(
        [attacked("dense", "0", "50", "0") | {"seeds": "1"}, attacked("random_ticket", "30", "60", "")]
    ).verdicts
    assert one.endswith("+10.0 points (1 seed, so nothing is known of chance)")
    (unknown,) = robust_bert([attacked("dense", "0", "50", ""), attacked("random_ticket", "30", "60", "3")]).verdicts
    assert unknown.endswith("+10.0 points (seeds do not differ, so nothing is known of chance)")
    (still,) = robust_bert([attacked("dense", "0", "50", "0"), attacked("random_ticket", "30", "60", "0")]).verdicts
    assert still.endswith("+10.0 points (seeds do not differ, so nothing is known of chance)")
    rows = [
        attacked(m, "0", f"{n}", "1", a)
        for a in ("x", "y")
        for n, m in enumerate(("dense", "a_ticket", "b_ticket", "freelb"))
    ]
    made = robust_bert(rows)
    assert [r[1] for r in made.rows] == ["b_ticket", "dense", "freelb"] * 2 and (made.won, made.more) == ({0, 3}, 2)


def test_bars_of_a_ticket_are_as_high_as_its_layers_are_dense():
    chart = density([("conv1", 100.0), ("conv2", 25.0), ("conv3", 0.0)], 40.0)
    assert 'height="120.0"' in chart and 'height="30.0"' in chart and 'height="0.0"' in chart
    assert "<title>conv2: 25.00 %</title>" in chart and "40.00 %" in chart
