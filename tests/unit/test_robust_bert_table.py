"""The robust-ticket table and figure on figures made up so that every answer is known."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")

from winnow.pipelines.robust_bert.figure import plot
from winnow.pipelines.robust_bert.grid import Run
from winnow.pipelines.robust_bert.table import table
from winnow.tables.figures import save


def test_the_robust_ticket_figure_has_a_column_an_attacker_and_the_same_bytes_twice(tmp_path):
    figures = {
        "dense": 40.0,
        "robust-4-30.epoch1": 99.0,
        "robust-4-30": 70.0,
        "robust-4-50": 75.0,
        "random-30": 30.0,
        "random-50": 25.0,
    }
    runs = [Run("m", "t", seed, n, a) for n in figures for a in ("textfooler", "pwws") for seed in (0, 1)]

    def measured(run):
        shared = {"examples": 10, "attacked": 10, "clean_percent": 99.0, "suc_percent": None, "mean_queries": 5.0}
        return {
            **shared,
            "aua_percent": figures[run.network] + run.seed,
            "perturbed_percent": 9.0,
            "test_accuracy_percent": 99.0,
        }

    rows = table(runs, measured, lambda run: float(run.ticket.rpartition("-")[2]) if run.mask else 0.0)
    for name in ("a.svg", "b.svg"):
        figure = plot(rows, "t")
        save(figure, tmp_path / name)
    assert [a.get_title() for a in figure.axes[:2]] == ["textfooler", "pwws"]
    lines = figure.axes[2].get_legend_handles_labels()[1]
    assert set(lines) == {"dense", "robust_ticket (epoch 4)", "random_ticket", "most robust ticket"}
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
