"""The robust-ticket grid and workflow: the paper's sweep, and the table."""

from __future__ import annotations

import copy
import csv

import pytest
import yaml
from conftest import ROOT

from winnow.config.root import load
from winnow.pipelines.robust_bert import grid

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
    # tasks x attackers x seeds x (dense, freelb, and per sparsity 4 epochs, random, magnitude)
    assert len(runs) == 3 * 3 * 5 * (2 + 3 * (4 + 2))


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
