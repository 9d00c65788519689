"""The three tables' rows, worked out again from the figures of the runs that they must stand for."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest

from winnow import Ticket

from .wiring_grid import DRAWN, NETWORKS, SEEDS, TICKETS, figures, transfer_folder, transfers

pytestmark = pytest.mark.slow


def test_double_win_rows_are_the_means_of_their_own_runs(wired):
    rows = pd.read_csv(wired / "results/tables/double_win.csv").set_index(
        ["pretraining", "imp_regime", "method", "dataset", "fraction"]
    )
    assert len(rows) == sum(len(t) for t in TICKETS.values()) * 3 and (rows["seeds"] == 2).all()
    for p, _, d, f, t, _ in transfers():
        kind, *rest = t.split("-")
        method = rest[0] if kind == "extra" else kind
        row = rows.loc[(p, rest[0] if kind in ("imp", "random") else "none", method, d, f / 100)]
        std, adv = (
            [figures(wired, f"{transfer_folder(p, s, d, f, t, mode)}/evaluation.json") for s in SEEDS]
            for mode in ("std", "adv")
        )
        expected = {
            "std_sa": [e["best_sa"]["sa"] for e in std],
            "std_ra": [e["best_sa"]["ra"] for e in std],
            "adv_sa": [e["best_ra"]["sa"] for e in adv],
            "adv_ra": [e["best_ra"]["ra"] for e in adv],
            "adv_best_sa": [e["best_sa"]["sa"] for e in adv],
            "adv_best_sa_ra": [e["best_sa"]["ra"] for e in adv],
            "adv_aa": [
                figures(wired, f"{transfer_folder(p, s, d, f, t, 'adv')}/autoattack.json")["aa"]
                if d == "many"
                else np.nan
                for s in SEEDS
            ],
            "adv_l2_ra": [e["best_ra"].get("l2_ra", np.nan) for e in adv],
        }
        for name, values in expected.items():
            assert row[f"{name}_mean"] == pytest.approx(np.mean(values), abs=1e-5, nan_ok=True), (p, t, d, f, name)
            assert row[f"{name}_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-5, nan_ok=True)
        mask = [wired / f"results/double_win/src/{p}/s{s}/tickets/{t}.mask.safetensors" for s in SEEDS]
        remaining = 100.0 if t == "dense" else np.mean([Ticket.load(m).remaining_percent for m in mask])
        assert (row["remaining_percent"], row["removed_percent"]) == (
            pytest.approx(remaining, abs=1e-5),
            pytest.approx(100 - remaining, abs=1e-5),
        )
        assert row["round"] == (2 if kind in ("imp", "omp", "random") else 0)
        dense = rows.loc[(p, "none", "dense", d, f / 100)]
        for name in ("std_sa", "adv_sa", "adv_ra"):
            assert row[f"dense_{name}"] == dense[f"{name}_mean"]
            if t != "dense":
                assert row[f"{name}_match"] == int(row[f"{name}_mean"] >= dense[f"{name}_mean"] - 3.0)


def test_robust_bert_rows_are_the_means_of_their_own_attacks(wired):
    rows = pd.read_csv(wired / "results/tables/robust_bert.csv")
    assert len(rows) == 2 * 2 * len(NETWORKS) and (rows["seeds"] == 2).all()
    chosen: dict[str, list[int]] = {}
    methods = {"robust": "robust_ticket", "random": "random_ticket", "magnitude": "magnitude_ticket"}
    for task, attacker, network in product(("short", "long"), ("fooler", "pwws"), NETWORKS):
        kind, *rest = network.split("-")
        own = rows[
            (rows["task"] == task) & (rows["attacker"] == attacker) & (rows["method"] == methods.get(kind, kind))
        ]
        own = own[(own["removed_percent"].round() == (int(rest[-1]) if rest else 0))]
        own = own[own["search_epoch"] == (int(rest[0]) if kind == "robust" else 0)]
        assert len(own) == 1, network
        folders = [f"results/robust_bert/tiny_bert/{task}/s{s}/attacks/{attacker}/{network}" for s in SEEDS]
        attacks = [figures(wired, f"{folder}.json") for folder in folders]
        for name in ("clean_percent", "aua_percent", "test_accuracy_percent"):
            assert own[name].item() == pytest.approx(np.mean([a[name] for a in attacks]), abs=1e-6)
        assert own["attacked"].item() == sum(a["attacked"] for a in attacks)
        for folder, found in zip(folders, attacks, strict=True):
            lines = [json.loads(line) for line in (wired / f"{folder}.jsonl").read_text().splitlines()]
            examples, whole = (5, 19) if task == "short" else (4, 17)
            assert len(lines) == examples and found["test_examples"] == whole
            indices = [r["index"] for r in lines]
            chosen.setdefault(task, indices)
            assert indices == chosen[task], "every network and attacker meets the same examples"
            right = sum(r["original_prediction"] == r["label"] for r in lines)
            assert found["clean_percent"] == pytest.approx(100 * right / examples)
            share = found["test_accuracy_percent"] * whole / 100
            assert abs(share - round(share)) < 1e-6
    assert chosen["long"] == list(range(4)) and chosen["short"] != list(range(5))  # the first, and a draw


def test_rare_gems_rows_are_the_means_of_their_own_tickets(wired):
    rows = pd.read_csv(wired / "results/tables/rare_gems.csv").set_index(
        ["experiment", "branch", "target_remaining_percent"]
    )
    assert len(rows) == 2 * len(DRAWN) + 2 * 3 + 1 + 1 and (rows["seeds"] == 2).all()
    for (e, b, target), row in rows.iterrows():
        name = f"imp/round{ {100: 0, 40: 1, 15: 2}[target] }" if row["algo"] in ("imp", "wt") else f"tuned/{target:g}"
        found = [figures(wired, f"results/rare_gems/{e}/{b}/s{s}/{name}.json") for s in SEEDS]
        pairs = {"acc_before": "acc_before", "acc_after_mean": "acc_after", "acc_last_mean": "acc_last"}
        for column, key in (pairs | {"remaining_percent": "remaining_percent"}).items():
            assert row[column] == pytest.approx(np.mean([f[key] for f in found]), abs=1e-5), (e, b, target, column)
        if b not in ("gem", "popup", "warm", "renda"):
            assert np.isnan(row["is_gem"]) and np.isnan(row["reinit_acc"])
            continue
        checks = [figures(wired, f"results/rare_gems/{e}/{b}/s{s}/sanity/{target:g}.json")["checks"] for s in SEEDS]
        assert set(checks[0]) == {"reinit", "shuffle"} | ({"invert"} if b != "popup" else set())
        best = max(np.mean([c[n]["acc_after"] for c in checks]) for n in checks[0])
        assert row["is_gem"] == int(row["acc_after_mean"] > best + 2.0 and row["acc_before"] >= 25.0 + 10.0)
        for n in checks[0]:
            assert row[f"{n}_acc"] == pytest.approx(np.mean([c[n]["acc_after"] for c in checks]), abs=1e-5)
