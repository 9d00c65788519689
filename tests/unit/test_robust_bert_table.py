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


def test_rows_are_means_over_seeds_and_sums_of_examples():
    runs = [Run("m", "t", seed, n, a) for n in ("robust-4-30", "dense") for a in ("pwws", "bae") for seed in (0, 1, 2)]

    def measured(run):
        own = 10.0 * (run.attacker == "bae")
        figures = {"clean_percent": 90.0, "aua_percent": 40.0, "suc_percent": 50.0, "mean_queries": 20.0,
                   "perturbed_percent": 7.0, "test_accuracy_percent": 80.0}  # fmt: skip
        return {"examples": 10, "attacked": 8 + run.seed, **{k: v + own + run.seed for k, v in figures.items()}}

    rows = table(runs, measured, lambda run: 29.5 if run.mask else 0.0)
    names = [(r.method, r.removed_percent, r.search_epoch, r.attacker) for r in rows.itertuples()]
    assert names == [
        (m, p, e, a) for m, p, e in (("robust_ticket", 29.5, 4), ("dense", 0.0, 0)) for a in ("pwws", "bae")
    ]
    assert list(rows.columns) == [
        "task", "model", "method", "removed_percent", "search_epoch", "attacker", "attacked", "seeds", "clean_percent",
        "aua_percent", "suc_percent", "mean_queries", "perturbed_percent", "clean_std", "aua_std", "examples",
        "test_accuracy_percent", "retrain_epoch",
    ]  # fmt: skip
    assert list(rows.iloc[1])[6:] == pytest.approx([27, 3, 101, 51, 61, 31, 18, 1, 1, 30, 91, 0])
