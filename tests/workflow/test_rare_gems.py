"""The rare-gems workflow whole, and the published settings."""

from __future__ import annotations

import pandas as pd
import pytest

from winnow import Ticket

pytestmark = pytest.mark.slow
TABLE = "results/tables/rare_gems.csv"


def test_table_has_a_row_for_each_branch(finished):
    rows = pd.read_csv(finished.folder / TABLE).set_index("branch")
    assert list(rows.index) == ["gem", "popup", "random", "smart", "snip", "synflow", "dense", "imp"]
    assert rows["acc_before"].between(0, 100).all() and rows["acc_after_mean"].between(0, 100).all()
    assert (rows.drop(index=["dense", "smart", "popup"])["remaining_percent"] - 10).abs().max() < 0.1
    assert rows.loc["dense", "remaining_percent"] == 100
    checks = rows[["reinit_acc", "shuffle_acc", "invert_acc", "is_gem"]]
    assert checks.loc["gem"].notna().all() and checks.drop(index="gem").isna().all(axis=None)
    assert (finished.folder / "results/figures/rare_gems/tiny.svg").stat().st_size > 5000


def test_every_hard_prune_left_a_ticket(finished):
    search = finished.folder / "results/rare_gems/tiny/gem/s0/search"
    levels = sorted((search / "10.levels").glob("*.safetensors"))
    assert [Ticket.load(p).metadata["level"] for p in levels] == [1, 2]
    assert Ticket.load(search / "10.mask.safetensors").kept == Ticket.load(levels[-1]).kept
