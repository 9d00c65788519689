"""The tables on made-up figures: every row worked out by hand. The commands are the workflow's own, the figures are
written anew.

Figures are chosen so that each likely mistake changes a row: seeds lie apart (mean, not the best or worst of them),
fractions lie further apart than any match allows (a join without the fraction shows), and networks that must not be
read hold other numbers.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from winnow import Ticket
from winnow.artifacts import write_record

pytestmark = pytest.mark.slow
# ticket of `plain`: (std_sa, adv_sa, adv_ra) over the dense model's; the tolerance is 3 points
ABOVE_DENSE = {"dense": (0, 0, 0), "imp-std-2": (5, -4, 5), "omp-2": (-3, -3, -3), "random-std-2": (-3.5, 6, 6)}
SPREAD = {3: -6.0, 5: 6.0}  # by which a seed lies beside the mean
CHECKS = {  # (branch, target): before, after, checks; chance is 25 %, a gem is 10 above it and 2 above every check
    ("gem", "15"): (40, 71, {"reinit": 60, "shuffle": 70, "invert": 50}),
    ("gem", "40"): (34, 73, {"reinit": 60, "shuffle": 70, "invert": 50}),
    ("popup", "40"): (36, 73, {"reinit": 70, "shuffle": 60}),
    ("popup", "15"): (80, 30, {"reinit": 50, "shuffle": 50}),
    **{
        (b, t): (20.0, 45.0, {"reinit": 30, "shuffle": 31, "invert": 32})
        for b in ("warm", "renda")
        for t in ("15", "40")
    },
}
IS_GEM = {("gem", 15.0): 0, ("gem", 40.0): 0, ("popup", 40.0): 1, ("popup", 15.0): 0,
          **{(b, t): 0 for b in ("warm", "renda") for t in (15.0, 40.0)}}  # fmt: skip


def seed_of(path: Path) -> int:
    return int(next(p for p in path.parts if re.fullmatch(r"s\d", p))[1])


def evaluation(path: Path) -> dict[str, Any]:
    """Made-up figures of one transfer."""
    *_, percent, ticket, mode, run = path.parent.parts
    above = ABOVE_DENSE.get(ticket, (0, 0, 0))
    base = (60.0 if percent == "100" else 30.0) + SPREAD[int(run[1])]
    other = {"sa": 99.0, "ra": 98.0}
    if mode == "std":
        return {"best_sa": {"sa": base + above[0], "ra": 1.0}, "test_images": 10}
    if path.name == "autoattack.json":
        return {"aa": base - 25, "images": 5}
    best = {"sa": base - 5 + above[1], "ra": base - 20 + above[2], "l2_ra": base - 22}
    return {"best_sa": other, "best_ra": best, "test_images": 10}


def tuned(path: Path) -> dict[str, Any]:
    before, after, _ = CHECKS.get((path.parts[-4], path.stem), (20.0, 45.0, {}))
    found = {
        "acc_before": before + SPREAD[seed_of(path)] / 2,
        "acc_after": after + SPREAD[seed_of(path)],
        "acc_last": 99.0,
    }
    if "robust_acc_after" in json.loads(path.read_text()):
        found |= {"robust_acc_before": 7.0, "robust_acc_after": 17.0 + SPREAD[seed_of(path)], "robust_acc_last": 97.0}
    return found


def sanity(path: Path) -> dict[str, Any]:
    _, _, checks = CHECKS[path.parts[-4], path.stem]
    return {
        "checks": {
            n: {"acc_before": 96.0, "acc_after": c - SPREAD[seed_of(path)], "acc_last": 95.0} for n, c in checks.items()
        }
    }


def attacked(path: Path) -> dict[str, Any]:
    """A network classifies 80 % of the attacked examples right, and 55 % of the whole test split."""
    shift = SPREAD[seed_of(path)]
    under = 40.0 if path.parent.name == "pwws" else 30.0
    missing = path.stem == "freelb" and seed_of(path) == 5  # no success, nothing to average
    return {
        "examples": 5, "attacked": 4, "clean_percent": 80.0 + shift, "aua_percent": under + shift,
        "suc_percent": 50.0 + shift,
        "mean_queries": 20.0 + shift, "perturbed_percent": None if missing else 10.0 + shift,
        "test_accuracy_percent": 55.0 + shift,
    }  # fmt: skip


@pytest.fixture(scope="module")
def made_up(wired, tmp_path_factory) -> Path:
    """The folder with everything that the tables read, its figures replaced, and the tables written again."""
    folder = tmp_path_factory.mktemp("made_up")
    for path in (wired / "results").rglob("*"):
        name = path.relative_to(wired)
        wanted = path.name.endswith((".mask.safetensors", "evaluation.json", "autoattack.json")) or {
            "attacks",
            "tuned",
            "sanity",
            "imp",
        } & set(name.parts)
        if path.is_file() and wanted and path.suffix in (".json", ".safetensors"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
    for path in folder.rglob("*.json"):
        kind = (
            path.parent.name
            if path.parent.name in ("tuned", "sanity", "imp")
            else "attacks"
            if "attacks" in path.parts
            else ""
        )
        figures = {"tuned": tuned, "imp": tuned, "sanity": sanity, "attacks": attacked, "": evaluation}[kind](path)
        record = json.loads(path.read_text())
        write_record(path, {**record, **figures})
    commands = [c for c in json.loads((wired / "commands.json").read_text()) if c[0].endswith("_table")]
    assert len(commands) == 3
    (folder / "results/tables").mkdir()
    script = [sys.executable, str(Path(__file__).with_name("in_process.py"))]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        script, input=json.dumps(commands), capture_output=True, text=True, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "results/tables"


def test_a_double_win_needs_all_three_and_is_compared_with_the_dense_model_of_its_own_data(made_up):
    rows = pd.read_csv(made_up / "double_win.csv")
    assert len(rows) == 30
    rows = rows[rows["pretraining"] == "plain"].set_index(["method", "dataset", "fraction"])
    for dataset, fraction in (("few", 1.0), ("few", 0.5), ("many", 0.5)):
        base = 60.0 if fraction == 1.0 else 30.0
        for method, ticket in (("dense", "dense"), ("imp", "imp-std-2"), ("omp", "omp-2"), ("random", "random-std-2")):
            row, above = rows.loc[(method, dataset, fraction)], ABOVE_DENSE[ticket]
            means = [row["std_sa_mean"], row["adv_sa_mean"], row["adv_ra_mean"]]
            assert means == [base + above[0], base - 5 + above[1], base - 20 + above[2]]
            assert row["std_sa_std"] == pytest.approx(72**0.5, abs=1e-5)
            assert list(row[["dense_std_sa", "dense_adv_sa", "dense_adv_ra"]]) == [base, base - 5, base - 20]
            assert row["adv_l2_ra_mean"] == base - 22
            assert row["adv_aa_mean"] == base - 25 if dataset == "many" else np.isnan(row["adv_aa_mean"])
            assert list(row[["adv_best_sa_mean", "adv_best_sa_ra_mean", "std_ra_mean"]]) == [99, 98, 1]
        flags = ["std_sa_match", "adv_sa_match", "adv_ra_match", "double_win"]
        # SA is lost after adversarial transfer alone
        assert list(rows.loc[("imp", dataset, fraction), flags]) == [1, 0, 1, 0]
        assert list(rows.loc[("omp", dataset, fraction), flags]) == [1, 1, 1, 1]  # exactly the tolerance below
        assert list(rows.loc[("random", dataset, fraction), flags]) == [0, 1, 1, 0]
        assert rows.loc[("dense", dataset, fraction), flags].isna().all()


def test_only_an_imp_ticket_makes_the_headline(made_up):
    rows = pd.read_csv(made_up / "double_win.csv")
    headline = rows.groupby("pretraining")["sparsest_double_win_removed_percent"].first()
    assert pd.isna(headline["plain"])  # the one-shot ticket wins there, the IMP ticket does not
    assert headline["fast"] == pytest.approx(64, abs=0.05) and pd.isna(headline["imported"])


def test_robust_bert_rows_are_means_over_seeds_of_the_attacked_examples(made_up):
    rows = pd.read_csv(made_up / "robust_bert.csv")
    assert len(rows) == 40
    for _, row in rows.iterrows():
        under = 40.0 if row["attacker"] == "pwws" else 30.0
        assert (row["clean_percent"], row["aua_percent"], row["suc_percent"], row["mean_queries"]) == (
            80,
            under,
            50,
            20,
        )
        assert row["test_accuracy_percent"] == 55 and row["perturbed_percent"] == (
            4 if row["method"] == "freelb" else 10
        )
        assert (row["attacked"], row["examples"], row["seeds"]) == (8, 10, 2)
        assert row["clean_std"] == pytest.approx(72**0.5) and row["aua_std"] == pytest.approx(72**0.5)


def test_a_gem_is_above_chance_before_and_above_every_check_after(made_up):
    rows = pd.read_csv(made_up / "rare_gems.csv").set_index(["experiment", "branch", "target_remaining_percent"])
    assert len(rows) == 24
    for (experiment, branch, target), row in rows.iterrows():
        before, after, checks = CHECKS.get((branch, f"{target:g}"), (20.0, 45.0, {}))
        assert (row["acc_before"], row["acc_after_mean"], row["acc_last_mean"]) == (before, after, 99), (
            experiment,
            branch,
            target,
        )
        assert row["acc_after_std"] == pytest.approx(72**0.5, abs=1e-5) and row["acc_before_std"] == pytest.approx(
            18**0.5, abs=1e-5
        )
        for check in ("reinit", "shuffle", "invert"):
            found = row[f"{check}_acc"], row[f"{check}_acc_before"]
            assert found == (checks[check], 96) if check in checks else pd.isna(found[0])
        expected = IS_GEM.get((branch, target))
        assert pd.isna(row["is_gem"]) if expected is None else row["is_gem"] == expected, (branch, target)
        robust = row["robust_acc_before"], row["robust_acc_after_mean"]
        assert robust == (7, 17) if branch == "warm_gem" else pd.isna(robust[0])


PLOTS = {
    "double_win_plots": ({"dataset": "few", "fraction": 1.0}, "double_win", "remaining", {100, 36}),
    "robust_bert_plots": ({"task": "short"}, "robust_bert", "remaining", {70, 40}),
    "rare_gems_plots": ({"experiment": "one"}, "rare_gems", "remaining", {100, 40, 15}),
}


@pytest.mark.parametrize("stage", list(PLOTS))
def test_a_figure_s_axis_shows_the_percentage_that_it_names(made_up, tmp_path, monkeypatch, stage):
    import matplotlib.figure

    config, table, named, percentages = PLOTS[stage]
    drawn, save = [], matplotlib.figure.Figure.savefig

    def record(figure, *arguments, **options):
        drawn.append(figure)
        return save(figure, *arguments, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", record)
    monkeypatch.chdir(tmp_path)
    outputs = [w for k in ("svg", "pdf", "png") for w in (f"--{k}", f"figure.{k}")] + ["--metrics", "figure.json"]
    arguments = ["--config", json.dumps(config), "--table", str(made_up / f"{table}.csv"), *outputs]
    assert importlib.import_module(f"winnow.stages.{stage}").stage.run(arguments) == 0
    axes = drawn[0].axes
    assert {named in a.get_xlabel() for a in axes if a.get_xlabel()} == {True}
    assert not any({"removed": "remaining", "remaining": "removed"}[named] in a.get_xlabel() for a in axes)
    # points at their true percentages, to within a weight; horizontal lines go from 0 to 1
    points = [float(x) for a in axes for line in a.get_lines() for x in line.get_xdata() if float(x) not in (0.0, 1.0)]
    assert points and all(min(abs(x - p) for p in percentages) < 0.1 for x in points)
    assert all(min(abs(x - p) for x in points) < 0.1 for p in percentages)


def test_the_report_says_what_remains(wired, monkeypatch):
    from winnow.tables.page import page

    monkeypatch.chdir(wired)
    html = page(Path("results"), ROOT / "workflow/report")
    tickets = re.findall(r"results/double_win/src/plain/s3/tickets/(\S+)-2\.mask\.safetensors: ([\d.]+) % remain", html)
    assert {kind for kind, _ in tickets} == {"imp-std", "omp", "random-std"}
    ticket = Ticket.load("results/double_win/src/plain/s3/tickets/imp-std-2.mask.safetensors")
    assert {share for _, share in tickets} == {
        f"{ticket.remaining_percent:.2f}"
    } and 35.9 < ticket.remaining_percent < 36.1
    name, mask = next(iter(ticket.arrays.items()))
    assert re.search(f"<td[^>]*>{re.escape(name)}</td>", html)
    assert f"<td>{mask.size}</td><td>{int(mask.sum())}</td>" in html
