"""The double-win workflow whole, and what reruns when the configuration grows."""

from __future__ import annotations

import copy
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

from .conftest import TABLE, Workflow

pytestmark = pytest.mark.slow


def test_table_and_figures_are_there_and_add_up(finished):
    rows = pd.read_csv(finished.folder / TABLE)
    assert set(rows["method"]) == {"dense", "imp", "omp", "random", "released"}
    assert set(rows["pretraining"]) == {"std", "fast_adv", "imported"}
    for column in ("std_sa_mean", "adv_sa_mean", "adv_ra_mean", "adv_aa_mean"):
        assert rows[column].between(0, 100).all()
    assert (rows["adv_aa_mean"] <= 100).all() and (rows["removed_percent"].isin([0.0]) == (rows["method"] == "dense")).all()
    # exported and brought back in, weights and ticket give the numbers of the originals
    metrics = ["std_sa_mean", "adv_sa_mean", "adv_ra_mean", "adv_aa_mean"]
    std = rows[rows["pretraining"] == "std"].set_index("method")
    back = rows[rows["pretraining"] == "imported"].set_index("method")
    assert list(std.loc["dense", metrics]) == list(back.loc["dense", metrics])
    assert list(std.loc["imp", metrics]) == list(back.loc["released", metrics])
    for suffix in ("svg", "png"):
        assert (finished.folder / f"results/figures/double_win/down-100.{suffix}").stat().st_size > 5000


def test_a_second_run_does_nothing(finished):
    done = finished.snakemake("--cores", "2", "double_win")
    assert done.returncode == 0 and "Nothing to be done" in done.stderr + done.stdout
    assert finished.pending("double_win") == set()


def grown(workflow, **section):
    """(jobs of the larger configuration that would run, all outputs that exist)."""
    pending = workflow.pending("double_win", config=workflow.changed(**section))
    return {p for p in pending if "/tables/" not in p and "/figures/" not in p}


def test_one_more_round_runs_one_more_round(finished):
    section = finished.config["double_win"]
    new = grown(finished, imp={**section["imp"], "rounds": 2})
    assert new and not [p for p in new if (finished.folder / p).exists()]
    prunes = {p for p in new if "/tickets/imp-" in p}
    assert {p.rpartition("/")[2] for p in prunes} == {"imp-std-2.mask.safetensors", "imp-adv-2.mask.safetensors"}
    assert {p.rpartition("/")[2] for p in new if "/trained/" in p} == {
        "imp-std-1.safetensors", "imp-std-1.json", "imp-adv-1.safetensors", "imp-adv-1.json",
    }  # fmt: skip


def test_a_second_downstream_runs_its_transfers_alone(finished):
    task = copy.deepcopy(finished.config["double_win"]["downstreams"][0])
    new = grown(finished, downstreams=[finished.config["double_win"]["downstreams"][0], task | {"name": "second"}])
    assert new and all("/transfer/second/" in p for p in new)


def test_another_seed_runs_that_seed_alone(finished):
    new = grown(finished, seeds=[0, 1])
    assert new and all("/s1/" in p for p in new)


def test_another_fraction_runs_its_transfers_alone(finished):
    task = copy.deepcopy(finished.config["double_win"]["downstreams"][0])
    new = grown(finished, downstreams=[task | {"fractions": [1.0, 0.5]}])
    assert new and all("/down/50/" in p for p in new)


def test_less_runs_nothing_but_the_table(finished):
    config = finished.changed(
        pretrainings=finished.config["double_win"]["pretrainings"][:1], transfer={"methods": ["dense", "imp"]}
    )
    pending = finished.pending("double_win", config=config)
    assert pending and all(p.startswith(("results/tables/", "results/figures/")) for p in pending)


def test_a_changed_tolerance_reruns_the_table_alone(finished):
    assert grown(finished, tolerance=2.0) == set()
    assert TABLE in finished.pending("double_win", config=finished.changed(tolerance=2.0))


def test_what_changes_no_result_reruns_nothing(finished):
    config = copy.deepcopy(finished.config) | {"workers": 7, "log_level": "debug", "data_root": "elsewhere", "device": "cpu"}
    assert finished.pending("double_win", config=config) == set()


def test_a_changed_evaluation_reruns_no_training(finished):
    task = copy.deepcopy(finished.config["double_win"]["downstreams"][0])
    task["evaluation"]["attack"]["steps"] = 3
    new = grown(finished, downstreams=[task])
    assert new and all(p.endswith("evaluation.json") for p in new)


def test_each_stage_runs_by_hand_as_snakemake_prints_it(finished, tmp_path):
    """The printed commands, run by hand in another folder on the same inputs, give the same bytes."""
    target = "results/double_win/tiny/std/s0/trained/imp-std-1.safetensors"
    printed = finished.snakemake("-n", "-p", "--forceall", target)
    lines = [line for line in (printed.stdout + printed.stderr).splitlines() if "python -m winnow.stages" in line]
    commands = [line[line.index("python -m") :] for line in lines]
    assert [shlex.split(c)[2].rpartition(".")[2] for c in commands] == ["pretrain", "imp_prune", "imp_train"]
    for command in commands:
        words = shlex.split(command)
        for path in [words[i + 1] for i, w in enumerate(words) if w in ("--out", "--metrics")] + [words[words.index("2>") + 1]]:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # as in an activated environment
        subprocess.run(["bash", "-c", command], check=True, cwd=tmp_path, env=os.environ | {"PATH": path})
    chain = "results/double_win/tiny/std/s0"
    for name in ("dense.safetensors", "tickets/imp-std-1.mask.safetensors"):
        assert sha256_file(tmp_path / chain / name) == sha256_file(finished.folder / chain / name)
    assert Ticket.load(tmp_path / chain / "tickets/imp-std-1.mask.safetensors").removed_percent == pytest.approx(20, abs=0.05)


def test_the_report_is_one_file_with_captions(finished):
    done = finished.snakemake("--report", "report.html", "double_win")
    assert done.returncode == 0, done.stderr[-2000:]
    text = (finished.folder / "report.html").read_text()
    assert "Double-win tickets" in text and "iterative magnitude pruning" in text


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"double_win": {"seds": [1]}}, "config.double_win.seds: unknown key; did you mean 'seeds'?"),
        ({"data_rot": "x"}, "config.data_rot: unknown key; did you mean 'data_root'?"),
        ({"double_win": {"imp": {"rounds": -1}}}, "config.double_win.imp.rounds: -1 must be >= 0"),
        ({"double_win": {"seeds": []}}, "seeds: [] must be at least one, and different"),
        ({"double_win": {"transfer": {"methods": ["imp"]}}}, "transfer.methods: dense is missing"),
        ({"double_win": {"transfer": {"rounds": [9]}}}, "transfer.rounds: round 9 is not run (imp.rounds is 2)"),
    ],
)
def test_mistakes_in_the_configuration_end_before_any_job(tmp_path, config, message):
    done = Workflow(tmp_path, config).snakemake("-n")
    assert done.returncode == 1 and message in done.stdout + done.stderr
    assert not (tmp_path / "results").exists()


def test_source_folder_is_not_written_to(finished):
    assert not (ROOT / "tests/workflow/results").exists()
