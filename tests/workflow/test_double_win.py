"""The double-win workflow whole: its table, its stages by hand, its report."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT

from winnow import Ticket
from winnow.artifacts import sha256_file

from .conftest import TABLE

pytestmark = pytest.mark.slow


def test_table_and_figures_are_there_and_add_up(finished):
    rows = pd.read_csv(finished.folder / TABLE)
    assert set(rows["method"]) == {"dense", "imp", "omp", "random", "released"}
    assert set(rows["pretraining"]) == {"std", "fast_adv", "imported"}
    for column in ("std_sa_mean", "adv_sa_mean", "adv_ra_mean", "adv_aa_mean"):
        assert rows[column].between(0, 100).all()
    assert (rows["adv_aa_mean"] <= 100).all() and (
        rows["removed_percent"].isin([0.0]) == (rows["method"] == "dense")
    ).all()
    # exported and brought back in, weights and ticket give the numbers of the originals
    metrics = ["std_sa_mean", "adv_sa_mean", "adv_ra_mean", "adv_aa_mean"]
    std = rows[rows["pretraining"] == "std"].set_index("method")
    back = rows[rows["pretraining"] == "imported"].set_index("method")
    assert list(std.loc["dense", metrics]) == list(back.loc["dense", metrics])
    assert list(std.loc["imp", metrics]) == list(back.loc["released", metrics])
    for suffix in ("svg", "png"):
        assert (finished.folder / f"results/figures/double_win/down-100.{suffix}").stat().st_size > 5000


def test_each_stage_runs_by_hand_as_snakemake_prints_it(finished, tmp_path):
    """The printed commands, run by hand in another folder on the same inputs, give the same bytes."""
    target = "results/double_win/tiny/std/s0/trained/imp-std-1.safetensors"
    printed = finished.snakemake("-n", "-p", "--forceall", target)
    lines = [line for line in (printed.stdout + printed.stderr).splitlines() if "python -m winnow.stages" in line]
    commands = [line[line.index("python -m") :] for line in lines]
    assert [shlex.split(c)[2].rpartition(".")[2] for c in commands] == ["pretrain", "prune", "train"]
    for command in commands:
        words = shlex.split(command)
        for path in [words[i + 1] for i, w in enumerate(words) if w in ("--out", "--metrics")] + [
            words[words.index("2>") + 1]
        ]:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # as in an activated environment
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=os.environ | {"PATH": path})
        assert done.returncode == 0, "".join(f.read_text() for f in tmp_path.rglob("*.log"))
    chain = "results/double_win/tiny/std/s0"
    for name in ("dense.safetensors", "tickets/imp-std-1.mask.safetensors"):
        assert sha256_file(tmp_path / chain / name) == sha256_file(finished.folder / chain / name)
    assert Ticket.load(tmp_path / chain / "tickets/imp-std-1.mask.safetensors").removed_percent == pytest.approx(
        20, abs=0.05
    )


def test_snakemake_s_own_report_has_the_captions(finished, tmp_path):
    done = finished.snakemake("--report", str(tmp_path / "report.html"), "double_win")
    assert done.returncode == 0, done.stderr[-2000:]
    text = (tmp_path / "report.html").read_text()
    assert "Double-win tickets" in text and "iterative magnitude pruning" in text


def test_source_folder_is_not_written_to(finished):
    assert not (ROOT / "tests/workflow/results").exists()
