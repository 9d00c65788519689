"""The text stages on a tiny model: determinism, resume after a kill, exact sparsity, loadable folders, bad input."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import same_artifact

torch = pytest.importorskip("torch")

from winnow.artifacts import read_arrays, read_tensors, sha256_file  # noqa: E402
from winnow.text.attacks.run import rows_so_far  # noqa: E402
from winnow.ticket import Ticket  # noqa: E402

DATA = {"dataset": "embedded", "max_length": 24, "train_examples": 96, "val_fraction": 0.02}
MODEL = {"source": "tiny", "layers": 1, "hidden": 16, "heads": 2, "intermediate": 32}
TRAIN = {"epochs": 2, "batch_size": 16, "optimizer": "adamw", "lr": 1e-3, "schedule": "linear", "clip_norm": 1.0}
FINETUNE = {"data": DATA, "train": TRAIN, "compute": {}, "seed": 0}
SEARCH = {**FINETUNE, "train": {**TRAIN, "lr": 0.1}, "masks": {}, "adversary": {"steps": 2}, "keep_epochs": [1, 2]}
ATTACK = {
    "data": {**DATA, "test_examples": 40},
    "attack": {"recipe": "textfooler", "candidates": "embedded"},
    "compute": {},
}


def needs(package):
    """Skip without the package; importing it here would bypass the shims."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def run(name, config, *extra, **files):
    arguments = ["--config", json.dumps(config), "--device", "cpu", *extra]
    for key, value in files.items():
        arguments += [f"--{key.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return importlib.import_module(f"winnow.stages.{name}").stage.run(arguments)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Pre-trained, dense, scores, ticket and retrained model, made once."""
    d = tmp_path_factory.mktemp("text")
    scratch = ("--scratch", str(d / "scratch"))
    assert run("import_text_model", {"model": MODEL, "data": DATA}, *scratch, out=d / "pre/model.safetensors") == 0
    pre, dense = d / "pre/model.safetensors", d / "dense/model.safetensors"
    assert run("finetune_text", FINETUNE, *scratch, model=pre, out=dense, metrics=d / "dense.json") == 0
    scores = [d / "s1.safetensors", d / "s2.safetensors"]
    assert run("search_robust_ticket", SEARCH, *scratch, model=dense, scores=scores, metrics=d / "search.json") == 0
    assert run("draw_ticket", {"removed_fraction": 0.3}, scores=scores[1], out=d / "t.mask.safetensors") == 0
    files = {"model": pre, "mask": d / "t.mask.safetensors", "out": d / "retrained/model.safetensors"}
    assert run("finetune_text", FINETUNE, *scratch, **files, metrics=d / "retrained.json") == 0
    return d


def test_the_drawn_fraction_is_exact_and_takes_the_lowest_scores(made):
    ticket, scores = Ticket.load(made / "t.mask.safetensors"), read_arrays(made / "s2.safetensors")
    assert ticket.total - ticket.kept == round(0.3 * ticket.total)
    lowest_kept = min(float(scores[n][m].min()) for n, m in ticket.arrays.items() if m.any())
    highest_gone = max(float(scores[n][~m].max()) for n, m in ticket.arrays.items() if not m.all())
    assert highest_gone <= lowest_kept
    assert len(ticket.arrays) == 6 * MODEL["layers"] + 1


def test_the_retrained_folder_loads_and_its_removed_weights_are_zero(made):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(made / "retrained")
    for name, mask in Ticket.load(made / "t.mask.safetensors").masks.items():
        assert model.get_parameter(name)[~mask].abs().max() == 0
    before, after = read_tensors(made / "pre/model.safetensors"), read_tensors(made / "retrained/model.safetensors")
    free = [n for n in before if "word_embeddings" in n or "LayerNorm" in n or n.startswith("classifier")]
    assert free and all(not torch.equal(before[n], after[n]) for n in free)


def test_search_moves_scores_and_leaves_the_weights(made):
    first, second = (read_arrays(made / f) for f in ("s1.safetensors", "s2.safetensors"))
    assert any(not np.array_equal(first[n], second[n]) for n in first)
    assert {n.rpartition(".")[2] for n in first} == {"weight"}


def test_two_runs_give_the_same_bytes(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {"model": made / "pre/model.safetensors", "out": tmp_path / "dense/model.safetensors"}
    assert run("finetune_text", FINETUNE, **files, metrics=tmp_path / "m.json") == 0
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        assert sha256_file(tmp_path / "dense" / name) == sha256_file(made / "dense" / name), name
    scores = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    assert (
        run(
            "search_robust_ticket",
            SEARCH,
            model=made / "dense/model.safetensors",
            scores=scores,
            metrics=tmp_path / "s.json",
        )
        == 0
    )
    assert same_artifact(scores[1], made / "s2.safetensors")


def test_an_attack_passes_over_a_torn_row_and_processes_share_the_examples(made, tmp_path):
    needs("textattack")
    command = [sys.executable, "-m", "winnow.stages.attack_text", "--config", json.dumps(ATTACK), "--device", "cpu"]
    command += ["--model", str(made / "dense/model.safetensors")]
    whole = [*command, "--out", "a.jsonl", "--metrics", "a.json", "--scratch", "one"]
    assert subprocess.run(whole, cwd=tmp_path, capture_output=True).returncode == 0
    rows = (tmp_path / "a.jsonl").read_bytes().splitlines(keepends=True)
    assert [json.loads(r)["index"] for r in rows] == list(range(40))
    figures = json.loads((tmp_path / "a.json").read_text())
    assert figures["attacked"] + figures["skipped"] == 40
    parallel = [*command, "--out", "b.jsonl", "--metrics", "b.json", "--scratch", "two", "--workers", "2"]
    assert subprocess.run(parallel, cwd=tmp_path, capture_output=True).returncode == 0
    assert (tmp_path / "b.jsonl").read_bytes() == b"".join(rows)
    # what a kill in the middle of a line leaves
    (tmp_path / "part-0-1.jsonl").write_bytes(rows[0] + b'{"index": 39, "torn')
    assert set(rows_so_far(tmp_path)) == {0}


def test_light_stages_never_import_torch(made, tmp_path):
    code = "import sys; from winnow.stages.draw_ticket import stage; sys.exit(stage.run(sys.argv[1:]) or 'torch' in sys.modules)"
    arguments = [
        "--config",
        '{"removed_fraction":0.5}',
        "--scores",
        str(made / "s1.safetensors"),
        "--out",
        "t.mask.safetensors",
    ]
    assert subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, env=os.environ).returncode == 0


BAD = {
    "another task's classes": (
        "finetune_text",
        {**FINETUNE, "data": {**DATA, "classes": 3}},
        {},
        "has 2 classes, the task 3",
    ),
    "an epoch too far": (
        "search_robust_ticket",
        {**SEARCH, "keep_epochs": [3]},
        {"scores": "s"},
        "keep_epochs [3] must be",
    ),
    "files for epochs": ("search_robust_ticket", SEARCH, {"scores": "s"}, "--scores: 1 files for 2 kept epochs"),
    "unknown recipe": (
        "attack_text",
        {**ATTACK, "attack": {"recipe": "textfoler", "candidates": "embedded"}},
        {},
        "did you mean 'textfooler'",
    ),
    "no neighbour list": (
        "attack_text",
        {**ATTACK, "attack": {"recipe": "bae", "candidates": "neighbours"}},
        {},
        "needs neighbours",
    ),
    "no vectors": (
        "attack_text",
        {**ATTACK, "attack": {"recipe": "textfooler", "candidates": "counter_fitted"}},
        {},
        "fetch_attack_assets",
    ),
    "pwws without synonyms": (
        "attack_text",
        {**ATTACK, "attack": {"recipe": "pwws", "candidates": "none"}},
        {},
        "candidates must be wordnet",
    ),
    "out is a file": (
        "finetune_text",
        FINETUNE,
        {"out": "x.safetensors"},
        "a model folder is named by its model.safetensors",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(made, tmp_path, monkeypatch, capsys, name):
    stage, config, changed, message = BAD[name]
    monkeypatch.chdir(tmp_path)
    quick = {**config, "train": {**config["train"], "epochs": 1}} if name == "out is a file" else config
    files = {"model": made / "pre/model.safetensors", "out": "o/model.safetensors", "metrics": "m.json"}
    if stage == "search_robust_ticket":
        files.pop("out")
    assert run(stage, quick, **(files | changed)) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"winnow {stage}: error: ") and message in last
    assert not list(tmp_path.glob("o/*")) and not (tmp_path / "m.json").exists()


def test_a_broken_model_folder_is_named(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    for file in (made / "pre").iterdir():
        data = file.read_bytes()
        (tmp_path / "broken" / file.name).write_bytes(data[:2000] if file.suffix == ".safetensors" else data)
    files = {"model": "broken/model.safetensors", "out": "o/model.safetensors", "metrics": "m.json"}
    assert run("finetune_text", FINETUNE, **files) == 2
    assert "model.safetensors: damaged: it is not what broken/winnow.json vouches for" in capsys.readouterr().err
