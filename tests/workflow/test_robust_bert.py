"""The robust-ticket grid and workflow: the paper's sweep, and the table."""

from __future__ import annotations

import copy
import csv
import json

import numpy as np
import pytest
import yaml
from conftest import ROOT

from winnow import Ticket
from winnow.artifacts import read_arrays, read_json, read_tensors
from winnow.config.root import load
from winnow.pipelines import packs
from winnow.pipelines.robust_bert import grid

from .conftest import Workflow

DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
PAPER = yaml.safe_load((ROOT / "config/paper/robust_bert.yaml").read_text())


def section(config):
    return load({"robust_bert": config["robust_bert"]}).robust_bert


def test_the_paper_grid_is_the_papers():
    runs = list(grid.grid_of(section(PAPER)).runs())
    robust = [r for r in runs if r.method == "robust_ticket"]
    assert {r.task for r in runs} == {"imdb", "ag_news", "sst2"}
    assert {r.search_epoch for r in robust} == {14, 16, 18, 20}
    assert {r.network.rpartition("-")[2] for r in robust} == {"20", "30", "40"}
    assert {r.attacker for r in runs} == {"textfooler", "bertattack", "textbugger"}
    # tasks x attackers x seeds x (dense, freelb, and per sparsity 4 epochs, random, magnitude, imp)
    assert len(runs) == 3 * 3 * 5 * (2 + 3 * (4 + 3))


def test_training_does_not_see_the_test_split_nor_the_sparsity():
    changed = copy.deepcopy(DEFAULT)
    changed["robust_bert"]["removed_fractions"] = [0.1]
    changed["robust_bert"]["tasks"][0]["data"]["test_examples"] = 50
    changed["robust_bert"]["tasks"][0]["attacked_examples"] = 7
    a, b = section(DEFAULT), section(changed)
    assert grid.import_model(a, "embedded") == grid.import_model(b, "embedded")
    assert grid.search(a, "embedded", "0") == grid.search(b, "embedded", "0")
    assert grid.finetune(a, "embedded", "dense", "0") == grid.finetune(b, "embedded", "dense", "0")


@pytest.mark.slow
def test_the_table_has_a_row_for_each_method(finished):
    rows = list(csv.DictReader((finished.folder / "results/tables/robust_bert.csv").open(newline="")))
    assert list(rows[0])[:8] == [
        "task",
        "model",
        "method",
        "removed_percent",
        "search_epoch",
        "attacker",
        "attacked",
        "seeds",
    ]
    assert {r["method"] for r in rows} == {"dense", "freelb", "robust_ticket", "random_ticket", "magnitude_ticket"}


def every(epochs: int, each: int | None):
    config = yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())
    own = {"methods": ["dense", "imp_ticket"], "removed_fractions": [0.1, 0.2], "attack_every": each}
    task = config["robust_bert"]["tasks"][0]
    task["retrain"] = {**task["retrain"], "epochs": epochs}
    return {"robust_bert": {**config["robust_bert"], **own}}


def test_which_epochs_of_a_retraining_are_attacked():
    def networks(config):
        return [r.network for r in grid.grid_of(section(config)).runs()]

    assert networks(every(5, None)) == networks(every(5, 5)) == networks(every(5, 9)) == ["dense", "imp-10", "imp-20"]
    assert networks(every(5, 2)) == [
        "dense", "imp-10.epoch2", "imp-10.epoch4", "imp-10", "imp-20.epoch2", "imp-20.epoch4", "imp-20",
    ]  # fmt: skip
    assert grid.finetune(section(every(5, 2)), "embedded", "imp-20", "0").keep_epochs == [2, 4]
    assert grid.finetune(section(every(5, 2)), "embedded", "dense", "0").keep_epochs == []
    run = grid.Run("m", "t", 0, "robust-14-12.5.epoch2", "a")
    assert (run.method, run.search_epoch, run.retrain_epoch) == ("robust_ticket", 14, 2)
    assert run.mask.endswith("/tickets/robust-14-12.5.mask.safetensors")
    members = list(packs.members(load(every(5, 2))))
    assert [[rule for rule, _ in jobs] for _, jobs in members] == [
        ["finetune_text", "attack_text"],
        *[["attack_text"]] * 6,
    ]


@pytest.mark.slow
def test_a_ticket_is_attacked_on_the_way_by_the_same_attack(tmp_path):
    """One retraining makes the networks of all epochs, and each is a row; the rate is constant, so a retraining of one
    epoch ends where that of two is after its first. The ticket is of two rounds of IMP: 10 % of the fine-tuned weights
    go, then 10 % of all by what a retraining from the pre-trained weights made of the others.
    """
    long, short = (Workflow(tmp_path / name, every(n, 1)) for name, n in (("long", 2), ("short", 1)))
    for workflow in (long, short):
        workflow.folder.mkdir()
        workflow.run("results/tables/robust_bert.csv")
    rows = list(csv.DictReader((long.folder / "results/tables/robust_bert.csv").open(newline="")))
    assert [(r["method"], r["removed_percent"][:2], r["retrain_epoch"]) for r in rows] == [
        ("dense", "0.", "0"), ("imp_ticket", "9.", "1"), ("imp_ticket", "9.", "0"), ("imp_ticket", "20", "1"),
        ("imp_ticket", "20", "0"),
    ]  # fmt: skip
    base = "results/robust_bert/tiny_bert/embedded/s0"
    first, last, alone = (
        read_tensors(f / base / n / "model.safetensors")
        for f, n in ((long.folder, "imp-10.epoch1"), (long.folder, "imp-10"), (short.folder, "imp-10"))
    )
    assert all((first[n] == alone[n]).all() for n in alone) and any((first[n] != last[n]).any() for n in alone)
    on_the_way, at_the_end = (
        read_json(f / base / "attacks/textfooler" / f"{n}.json")
        for f, n in ((long.folder, "imp-10.epoch1"), (short.folder, "imp-10"))
    )
    figures = ("attacked", "clean_percent", "aua_percent", "mean_queries")
    assert [on_the_way[f] for f in figures] == [at_the_end[f] for f in figures]
    seed = short.folder / base
    names = ["dense", "imp-10", "imp-20"]
    weights = {n: read_arrays(seed / n / "model.safetensors") for n in names[:2]}
    one, two = (Ticket.load(seed / f"tickets/{n}.mask.safetensors") for n in names[1:])
    assert (one.removed_percent, two.removed_percent) == (pytest.approx(10, abs=0.05), pytest.approx(20, abs=0.05))
    assert two.is_within(one)
    for ticket, last, by in ((one, None, "dense"), (two, one, "imp-10")):
        ranked = {n: np.where(last.arrays[n] if last else True, np.abs(weights[by][n]), -1) for n in ticket.arrays}
        lowest = min(ranked[n][m].min() for n, m in ticket.arrays.items() if m.any())
        assert all((ranked[n][~m] <= lowest).all() for n, m in ticket.arrays.items())
    record = json.loads((seed / "imp-20/winnow.json").read_text())
    assert record["parents"]["model"]["path"].endswith("embedded/pretrained/winnow.json")
