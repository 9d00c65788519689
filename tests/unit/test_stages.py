"""Every stage as a command: help, speed of light stages, provenance, determinism."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import pytest
from conftest import ATTACK, DIGITS, ROOT, TRAIN

from winnow import Ticket
from winnow.artifacts import read_json, read_metadata

COMMANDS = {"report", "trace", "verify"}  # about artifacts of others: no job, no configuration
STAGES = sorted({p.stem for p in (ROOT / "src/winnow/stages").glob("[a-z]*.py")} - COMMANDS)


@pytest.mark.parametrize("name", STAGES)
def test_help_explains_every_argument(name):
    stage = importlib.import_module(f"winnow.stages.{name}").stage
    assert stage.name == name and stage.doc.strip()
    text = stage.parser().format_help()
    for declared in [*stage.inputs, *stage.outputs]:
        assert f"--{declared.rstrip('?*').replace('_', '-')}" in text
    assert all(a.help for a in stage.parser()._actions)


@pytest.mark.parametrize("name", STAGES)
def test_stages_are_short(name):
    assert len((ROOT / f"src/winnow/stages/{name}.py").read_text().splitlines()) <= 100


def test_help_runs_as_a_command():
    done = subprocess.run([sys.executable, "-m", "winnow.stages.transfer", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--best-sa PATH" in done.stdout and "configuration keys:" in done.stdout


@pytest.mark.parametrize(
    "name", ["prune", "draw_ticket", "gem_ticket", "export_ticket", "double_win_table", "double_win_plots"]
)
def test_light_stages_never_import_torch(name):
    code = f"import sys, winnow.stages.{name}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_importing_any_stage_needs_no_workflow_attack_or_text_package():
    blocked = [
        "snakemake",
        "advertorch",
        "textattack",
        "pyautoattack",
        "pandas",
        "sklearn",
        "matplotlib",
        "datasets",
        "yaml",
    ]
    code = (
        f"import sys, importlib\nfor m in {blocked!r}: sys.modules[m] = None\n"
        f"for s in {STAGES!r}: importlib.import_module('winnow.stages.' + s)\n"
        "import winnow.vision.training, winnow.vision.evaluate, winnow.vision.models, winnow.vision.sources"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_artifacts_say_where_they_come_from(dense, run_stage, tmp_path):
    out = tmp_path / "r.mask.safetensors"
    config = {"method": "magnitude", "label": "imp", "round": 1, "remaining_percent": 80}
    run_stage("prune", config, weights=dense, out=out)
    record = read_metadata(out)
    assert record["stage"] == "prune" and record["config"]["round"] == 1 and record["method"] == "imp"
    assert record["parents"]["weights"]["path"] == str(dense) and len(record["parents"]["weights"]["sha256"]) == 64
    assert len(record["source"]) == 16 and "torch" in record["versions"]
    metrics = read_json(dense.with_suffix(".json"))
    assert metrics["run"]["wall_seconds"] > 0 and metrics["provenance"]["config"]["seed"] == 0


def test_same_job_same_bytes(run_stage, pretrain_config, tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert run_stage("pretrain", pretrain_config, out="dense", metrics="dense.json")[0] == 0
    assert (tmp_path / "a/dense").read_bytes() == (tmp_path / "b/dense").read_bytes()


def test_rounds_are_nested_and_random_tickets_have_their_counts(dense, run_stage, tmp_path):
    one, trained, two, rand, omp = (tmp_path / n for n in ("1.mask", "t.safetensors", "2.mask", "r.mask", "o.mask"))
    cut = {"method": "magnitude", "remaining_percent": 80}
    run_stage("prune", cut, weights=dense, out=one)
    train = {"data": DIGITS, "train": TRAIN, "attack": ATTACK, "compute": {}, "seed": 0, "keep": "last"}
    assert run_stage("train", train, init=dense, mask=one, out=trained, metrics=tmp_path / "m")[0] == 0
    assert run_stage("prune", {**cut, "remaining_percent": 64}, weights=trained, mask=one, out=two)[0] == 0
    assert run_stage("prune", {"method": "random", "seed": 1}, like=two, out=rand)[0] == 0
    assert run_stage("prune", {**cut, "remaining_percent": 64}, weights=dense, out=omp)[0] == 0
    tickets = [Ticket.load(p) for p in (one, two, rand, omp)]
    assert tickets[1].is_within(tickets[0]) and abs(tickets[1].removed_percent - 36) < 100 / tickets[1].total
    assert [r["kept"] for r in tickets[2].report()] == [r["kept"] for r in tickets[1].report()]
    assert tickets[3].kept == tickets[1].kept
    again = tmp_path / "again.mask"
    assert run_stage("prune", cut, weights=dense, out=again)[0] == 0
    assert (Ticket.load(again).report()) == tickets[0].report()  # round 1 ranks the same dense weights


def test_a_config_file_can_stand_for_the_json(dense, run_stage, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"method": "magnitude", "remaining_percent": 80}))
    assert run_stage("prune", "@c.json", weights=dense, out=tmp_path / "o")[0] == 0


GPU_MACHINE = """
import sys
blocked = "snakemake advertorch textattack pyautoattack matplotlib datasets pyarrow flair nltk langdetect tensorboard".split()
sys.modules.update(dict.fromkeys(blocked))
import importlib, json
for name, config, files in json.loads(sys.argv[1]):
    arguments = ["--config", json.dumps(config), "--device", "cpu"]
    arguments += [a for k, v in files.items() for a in ("--" + k, v)]
    code = importlib.import_module("winnow.stages." + name).stage.run(arguments)
    assert code == 0, (name, code)
"""


def test_training_needs_few_packages(dense, tmp_path):
    """torch, torchvision, transformers, safetensors, NumPy, pydantic, pandas and scikit-learn, with what these need
    themselves.
    """
    train = TRAIN | {"epochs": 1}
    text = {"data": {"dataset": "embedded", "max_length": 16, "train_examples": 32}, "seed": 0}
    tiny = {"source": "tiny", "layers": 1, "hidden": 16, "heads": 2, "intermediate": 32}
    masks = {
        "train": train | {"optimizer": "adamw"},
        "masks": {},
        "adversary": {"steps": 1},
        "keep_epochs": [1],
        "compute": {},
    }
    torchvision = {"arch": "squeezenet1_1"}
    search = {"search": {"algo": "ep", "target_sparsity": 20, "regularization": None}}
    shared = {"data": DIGITS | {"image_size": 32}, "train": train, "compute": {}, "seed": 0}
    bert = str(tmp_path / "bert/model.safetensors")
    jobs = [
        ("pretrain", {**shared, "method": "std", "model": torchvision}, {"out": "dense", "metrics": "m0"}),
        ("import_text_model", {**text, "model": tiny}, {"out": bert}),
        ("search_robust_ticket", {**text, **masks}, {"model": bert, "scores": "scores", "metrics": "m1"}),
        ("gem_search", {**shared, **search}, {"init": str(dense), "out": "gem", "order": "order", "metrics": "m2"}),
    ]
    done = subprocess.run(
        [sys.executable, "-c", GPU_MACHINE, json.dumps(jobs)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_the_gpu_benchmark_says_when_there_is_no_gpu():
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "bench/gpu.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout == "skipped: no GPU\n"
