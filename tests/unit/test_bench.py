"""The benches: each runs in small with its comparison of results, and the harness and the report say what they
should.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os

import pytest

from bench import common, report


@pytest.mark.parametrize("name", [*report.ORDER, "floor"])
def test_paths_agree_and_every_row_is_written(name, tmp_path):
    if name == "text_attack" and importlib.util.find_spec("textattack") is None:
        pytest.skip("textattack is not installed")
    importlib.import_module(f"bench.{name}").main(["--tiny", "--out", str(tmp_path)])
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert record["rows"] and all(row["value"] > 0 for row in record["rows"])
    assert {"processor", "torch", "bf16_instructions"} <= set(record["machine"])


class Path:
    """Says how much it counts to."""

    def __init__(self, size):
        self.size = size

    def answer(self):
        return os.getpid(), self.size

    def run(self):
        return sum(range(self.size))


def agree(path, plain, ours):
    assert plain[1] == ours[1], "sizes differ"
    return {"processes": len({plain[0], ours[0], os.getpid()})}


ARGUMENTS = argparse.Namespace(tiny=False, repeats=5)


def test_paths_run_in_processes_of_their_own_and_in_turn():
    (row,) = common.race(
        "count", {"plain": (Path, {"size": 1000}), "float32": (Path, {"size": 1000})}, agree, {}, ARGUMENTS
    )
    assert row["differences"] == {"processes": 3} and row["repeats"] == 5
    assert row["low"] <= row["quartiles"][0] <= row["value"] <= row["quartiles"][1] <= row["high"]


def test_paths_that_disagree_are_not_timed():
    paths = {"plain": (Path, {"size": 10}), "float32": (Path, {"size": 11})}
    with pytest.raises(AssertionError, match="sizes differ"):
        common.race("count", paths, agree, {}, ARGUMENTS)
    with pytest.raises(AssertionError, match="float32 gives 55, plain 45"):
        common.race("count", paths, lambda *_: {}, {}, argparse.Namespace(tiny=True, repeats=1))
    with pytest.raises(RuntimeError, match="unexpected keyword argument 'sise'"):
        common.race("count", {"plain": (Path, {"sise": 1})}, agree, {}, ARGUMENTS)


ROW = {
    "case": "a step",
    "path": "float32",
    "value": 1.5,
    "unit": "x",
    "goal": 1.3,
    "at_most": False,
    "low": 1.4,
    "high": 1.6,
}
RECORD = {
    "machine": {"processor": "P", "cores": 2, "bf16_instructions": True, "torch": "2", "python": "3"},
    "threads": 1, "date": "2026-01-01", "others_percent": 0.0,
    "rows": [{**ROW, "plain_seconds": 3.0, "seconds": 2.0}, {**ROW, "goal": 1.6},
     {**ROW, "goal": 1.6, "at_most": True}],
}  # fmt: skip


def test_the_report_says_what_is_met_and_marks_disturbed_runs():
    lines = report.table([RECORD]).splitlines()
    assert lines[2] == "| a step | float32 | 3 | 2 | **1.5x** (1.40-1.60) | ≥ 1.3x | met |"
    assert lines[3].endswith("| ≥ 1.6x | missed |") and lines[4].endswith("| ≤ 1.6x | met |")
    assert "to be taken again" not in report.heading({"step": RECORD})
    disturbed = {**RECORD, "others_percent": 40.0}
    assert "to be taken again: step" in report.heading({"step": disturbed})
    assert "| float32 * |" in report.table([disturbed])


def test_blocks_are_replaced_and_a_page_without_one_is_refused():
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    assert report.replace(page, "x", "new") == "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"
    with pytest.raises(ValueError, match="no block"):
        report.replace(page, "y", "new")
