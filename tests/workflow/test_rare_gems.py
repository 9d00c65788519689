"""The rare-gems workflow whole, what reruns when its configuration changes, and the published settings."""

from __future__ import annotations

import copy

import pandas as pd
import pytest
import yaml
from conftest import ROOT

from winnow import Ticket

from .conftest import Workflow

pytestmark = pytest.mark.slow
TABLE = "results/tables/rare_gems.csv"


@pytest.fixture(scope="module")
def gems(tmp_path_factory):
    """The tiny rare-gems workflow, run to its table and figure."""
    config = yaml.safe_load((ROOT / "tests/workflow/tiny_gems.yaml").read_text())
    workflow = Workflow(tmp_path_factory.mktemp("rare_gems"), config)
    workflow.run("rare_gems")
    return workflow


def changed(workflow, change):
    """A copy of the configuration after `change(experiment, section)`."""
    config = copy.deepcopy(workflow.config)
    change(config["rare_gems"]["experiments"][0], config["rare_gems"])
    return config


def stale(workflow, change):
    """Outputs below results/rare_gems that the changed configuration would write."""
    pending = workflow.pending("rare_gems", config=changed(workflow, change))
    return {p for p in pending if p.startswith("results/rare_gems/")}


def test_table_has_a_row_for_each_branch(gems):
    rows = pd.read_csv(gems.folder / TABLE).set_index("branch")
    assert list(rows.index) == ["gem", "popup", "random", "smart", "snip", "synflow", "dense", "imp"]
    assert rows["acc_before"].between(0, 100).all() and rows["acc_after_mean"].between(0, 100).all()
    assert (rows.drop(index=["dense", "smart", "popup"])["remaining_percent"] - 10).abs().max() < 0.1
    assert rows.loc["dense", "remaining_percent"] == 100
    checks = rows[["reinit_acc", "shuffle_acc", "invert_acc", "is_gem"]]
    assert checks.loc["gem"].notna().all() and checks.drop(index="gem").isna().all(axis=None)
    assert (gems.folder / "results/figures/rare_gems/tiny.svg").stat().st_size > 5000


def test_every_hard_prune_left_a_ticket(gems):
    search = gems.folder / "results/rare_gems/tiny/gem/s0/search"
    levels = sorted((search / "10.levels").glob("*.safetensors"))
    assert [Ticket.load(p).metadata["level"] for p in levels] == [1, 2]
    assert Ticket.load(search / "10.mask.safetensors").kept == Ticket.load(levels[-1]).kept


def test_a_second_run_does_nothing(gems):
    assert gems.pending("rare_gems") == set()


def test_one_more_sparsity_searches_nothing_that_is_there(gems):
    pending = stale(gems, lambda e, _: e.update(targets=[30, 10]))
    assert pending and all("/30." in p or p.endswith(("tiny.svg", "tiny.png")) for p in pending)
    assert not any("/gem/s0/search" in p or "/imp/" in p for p in pending)
    assert "results/rare_gems/tiny/gem/s0/drawn/30.mask.safetensors" in pending


def test_one_more_seed_runs_that_seed(gems):
    pending = stale(gems, lambda _, s: s.update(seeds=[0, 1]))
    assert pending and all("/s1" in p for p in pending)


def test_lambda_of_a_gem_reruns_that_gem(gems):
    pending = stale(gems, lambda e, _: e["branches"][0]["search"].update(lmbda=2e-4))
    assert pending and all("/gem/s0/" in p for p in pending)


def test_fine_tuning_epochs_rerun_no_search(gems):
    pending = stale(gems, lambda e, _: e.update(finetune={**e["finetune"], "epochs": 2}))
    assert pending and not any("/search/" in p or "/inverted/" in p or p.endswith(".mask.safetensors") for p in pending)


def test_spelling_reruns_nothing(gems):
    def reorder(experiment, section):
        for branch in experiment["branches"]:
            for key in list(branch):
                branch[key] = branch.pop(key)
        section["gem_before"] = 10.0  # the default, said aloud

    assert stale(gems, reorder) == set()


def test_unknown_key_is_refused_before_any_job(gems):
    config = changed(gems, lambda e, _: e["branches"][0]["search"].update(lambd=1))
    done = gems.snakemake("-n", "rare_gems", config=config)
    assert done.returncode != 0 and "did you mean 'lmbda'" in done.stderr + done.stdout
