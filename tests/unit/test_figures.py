"""Figures: true positions, real ticks, one axis, winners marked, and the same bytes twice."""

from __future__ import annotations

import pandas as pd
import pytest

pytest.importorskip("matplotlib")

from winnow.pipelines.double_win.figure import plot as double_win
from winnow.pipelines.rare_gems.figure import plot as rare_gems
from winnow.tables.figures import KNOWN, MORE, pyplot, remaining_axis, save


def transfers() -> pd.DataFrame:
    rows = []
    for method, remaining, value, won in [
        ("dense", 100.0, 90.0, None), ("imp", 80.0, 91.0, 1), ("imp", 64.0004, 89.0, 1), ("imp", 51.2, 70.0, 0),
        ("random", 64.0, 60.0, 0),
    ]:  # fmt: skip
        figures = {f"{m}_{s}": v for m in ("std_sa", "adv_sa", "adv_ra") for s, v in (("mean", value), ("std", 1.0))}
        about = {"pretraining": "p", "method": method, "imp_regime": "none", "remaining_percent": remaining, "seeds": 2}
        rows.append(about | figures | {"double_win": won, "published_double_win_removed_percent": 59.04})
    return pd.DataFrame(rows)


def gems() -> pd.DataFrame:
    rows = [
        {"branch": b, "remaining_percent": r, "acc_after_mean": a, "acc_after_std": 0.5, "acc_before": a - 20,
         "acc_before_std": 1.0,
         "reinit_acc": c, "shuffle_acc": c, "invert_acc": None, "is_gem": g, "seeds": 3, "published_acc_after": None,
         "published_acc_before": None}
        for b, r, a, c,
        g in [("miner", 5.0, 90.0, 70.0, 1), ("miner", 0.59, 80.0, 79.9, 0), ("random", 5.0, 60.0, None, None)]
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"is_gem": "float"})


def positions(axis, label: str) -> list[float]:
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    drawn = handles[label]
    return [float(x) for x in (drawn[0] if isinstance(drawn, tuple) else drawn).get_xdata()]


@pytest.mark.parametrize(
    ("figure", "stars", "lines"),
    [
        (
            lambda: double_win(transfers(), "t"),
            {"double-win ticket": [80.0, 64.0004]},
            {"imp": [80.0, 64.0004, 51.2], "random": [64.0]},
        ),
        (lambda: rare_gems(gems(), "t"), {"gem": [5.0]}, {"miner": [5.0, 0.59], "random": [5.0]}),
    ],
    ids=["double_win", "rare_gems"],
)
def test_points_stand_at_their_percentages_and_winners_are_marked(figure, stars, lines):
    drawn = figure()
    for axis in drawn.axes:
        for label, at in (stars | lines).items():
            assert positions(axis, label) == at
        low, high = axis.get_xlim()
        assert low > high and axis.get_xscale() == "log"  # dense on the left
    assert drawn.axes[-1].get_xlabel() == "remaining weights (%)"


def test_ticks_are_percentages_that_were_run():
    axis = pyplot().figure().add_subplot()
    run = [100 * 0.8**k for k in range(20)]
    remaining_axis(axis, run)
    ticks = list(axis.get_xticks())
    assert all(min(abs(t - r) for r in run) < 0.01 for t in ticks) and 3 <= len(ticks) <= 8
    assert ticks[0] == 100 and ticks[-1] == pytest.approx(run[-1], abs=1e-3)
    assert not list(axis.get_xticks(minor=True))
    labels = [t.get_text() for t in axis.get_xticklabels()]
    assert labels[0] == "100" and all("^" not in text and "e" not in text for text in labels)


def test_the_same_figure_has_the_same_bytes_and_its_text_is_text(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save(rare_gems(gems(), "a title"), *(tmp_path / folder / f"f.{kind}" for kind in ("svg", "pdf", "png")))
    for kind in ("svg", "pdf", "png"):
        assert (tmp_path / f"a/f.{kind}").read_bytes() == (tmp_path / f"b/f.{kind}").read_bytes()
    text = (tmp_path / "a/f.svg").read_text()
    assert "remaining weights (%)</text>" in text and "miner</text>" in text


def test_methods_differ_in_colour_and_in_marker():
    looks = [*KNOWN.values(), *MORE]
    assert len({c for c, _ in looks}) == len(looks) == len({m for _, m in looks})
