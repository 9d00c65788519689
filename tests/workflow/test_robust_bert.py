"""The robust-ticket grid and workflow: the paper's sweep, and what a changed key reruns."""

from __future__ import annotations

import copy
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

from winnow.config.root import load
from winnow.errors import WinnowError
from winnow.grid import robust_bert as grid

DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
PAPER = yaml.safe_load((ROOT / "config/paper/robust_bert.yaml").read_text())


def section(config):
    return load({"robust_bert": config["robust_bert"]}).robust_bert


def test_the_paper_grid_is_the_papers():
    runs = list(grid.grid_of(section(PAPER)).runs())
    robust = [r for r in runs if r.method == "robust_ticket"]
    assert {r.task for r in runs} == {"imdb", "ag_news", "sst2"}
    assert {r.search_epoch for r in robust} == {13, 15, 17, 19}
    assert {r.network.rpartition("-")[2] for r in robust} == {"20", "30", "40"}
    assert {r.attacker for r in runs} == {"textfooler", "bertattack", "textbugger"}
    # tasks x attackers x seeds x (dense, freelb, and per sparsity 4 epochs, random, magnitude)
    assert len(runs) == 3 * 3 * 5 * (2 + 3 * (4 + 2))


def test_every_stage_takes_its_configuration():
    """What the grid hands to each stage is what the stage's own schema accepts."""
    import importlib

    from winnow.schema import parse

    for config in (DEFAULT, PAPER):
        s = section(config)
        task, seed, attacker = s.tasks[0].name, s.seeds[0], s.attackers[0].name
        jobs = {
            "import_text_model": [grid.import_config(s, task)],
            "finetune_text": [grid.finetune_config(s, task, n, seed) for n in ("dense", "freelb")],
            "retrain_ticket": [grid.finetune_config(s, task, "random-30", seed)],
            "search_robust_ticket": [grid.search_config(s, task, seed)],
            "draw_ticket": [grid.draw_config("30")],
            "magnitude_ticket": [grid.keep_config("30")],
            "random_ticket": [grid.keep_config("30", seed)],
            "attack_text": [grid.attack_config(s, task, attacker, seed)],
            "robust_bert_table": [grid.table_config(s)],
            "fetch_attack_assets": [grid.fetch_config(s)],
        }
        for stage, configs in jobs.items():
            for made in configs:
                parse(importlib.import_module(f"winnow.stages.{stage}").Config, made, stage)


def test_training_does_not_see_the_test_split_nor_the_sparsity():
    changed = copy.deepcopy(DEFAULT)
    changed["robust_bert"]["removed_fractions"] = [0.1]
    changed["robust_bert"]["tasks"][0]["data"]["test_examples"] = 50
    changed["robust_bert"]["tasks"][0]["attacked_examples"] = 7
    a, b = section(DEFAULT), section(changed)
    for build in (grid.import_config,):
        assert build(a, "embedded") == build(b, "embedded")
    assert grid.search_config(a, "embedded", 0) == grid.search_config(b, "embedded", 0)
    assert grid.finetune_config(a, "embedded", "dense", 0) == grid.finetune_config(b, "embedded", "dense", 0)


BAD = {
    "search epoch": (("tasks", 0, "search_epochs"), [99], "search_epochs [99] must lie within"),
    "name": (("tasks", 0, "name"), "a/b", "must be letters"),
    "fraction": (("removed_fractions",), [1.5], "must be < 1"),
    "empty": (("attackers",), [], "attackers is empty"),
    "hidden": (("model", "hidden"), 30, "not a multiple of heads"),
    "recipe": (("attackers", 0, "attack", "recipe"), "pwvs", "did you mean 'pwws'"),
    "file without paths": (("tasks", 0, "data", "dataset"), "file", "needs train_path and test_path"),
    "glue without task": (("tasks", 0, "data", "dataset"), "glue", "needs task"),
    "no path": (("model", "source"), "pretrained", "needs path"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations_name_the_key(name):
    path, value, message = BAD[name]
    changed = copy.deepcopy(DEFAULT["robust_bert"])
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(WinnowError, match=re.escape(message)) as caught:
        section({"robust_bert": changed})
    assert "robust_bert" in str(caught.value)


TINY = {
    "robust_bert": DEFAULT["robust_bert"]
    | {
        "seeds": [0],
        "model": {"source": "tiny", "layers": 1, "hidden": 16, "heads": 2, "intermediate": 32},
        "removed_fractions": [0.3],
        "methods": ["robust_ticket", "dense"],
        "attackers": DEFAULT["robust_bert"]["attackers"][:1],
    },
    "checkpoint_seconds": 3600,
}
SMALL = {"dataset": "embedded", "max_length": 24, "train_examples": 96, "val_fraction": 0.02, "test_examples": 20}
TINY["robust_bert"]["tasks"] = [
    DEFAULT["robust_bert"]["tasks"][0]
    | {"data": SMALL, "attacked_examples": 8}
    | {k: {**DEFAULT["robust_bert"]["tasks"][0][k], "epochs": 1} for k in ("finetune", "freelb", "search", "retrain")}
    | {"search_epochs": [1]}
]


def snakemake(folder, config, *arguments):
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    done = subprocess.run(
        [*command, *arguments, "results/tables/robust_bert.csv", "--configfile", str(folder / "tiny.yaml")],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def pending(folder, config):
    """Rules that a run would execute now."""
    counted = re.findall(r"^(\w+) +\d+$", snakemake(folder, config, "-n"), re.MULTILINE)
    return set(counted) - {"total"}


@pytest.mark.slow
def test_another_sparsity_or_attacker_never_searches(tmp_path):
    snakemake(tmp_path, TINY, "--cores", "2")
    assert pending(tmp_path, TINY) == set()
    rows = (tmp_path / "results/tables/robust_bert.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 and rows[0].startswith("task,model,method,removed_percent,search_epoch,attacker,attacked,seeds,")
    sparser = copy.deepcopy(TINY)
    sparser["robust_bert"]["removed_fractions"] = [0.3, 0.6]
    assert pending(tmp_path, sparser) == {"draw_ticket", "retrain_ticket", "attack_text", "robust_bert_table"}
    longer = copy.deepcopy(TINY)
    longer["robust_bert"]["tasks"][0]["attacked_examples"] = 12
    assert pending(tmp_path, longer) == {"attack_text", "robust_bert_table"}
    harder = copy.deepcopy(TINY)
    harder["robust_bert"]["tasks"][0]["adversary"] = {"steps": 1}
    assert "search_robust_ticket" in pending(tmp_path, harder) and "finetune_text" not in pending(tmp_path, harder)
