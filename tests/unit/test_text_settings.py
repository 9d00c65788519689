"""Settings of the text stages that once were recorded and not followed, and which examples an attack takes."""

from __future__ import annotations

import importlib.util
import json
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_text_families import DATA, LENGTH, TASK, TRAIN, bring_in, model_of, run, saved  # noqa: E402

from winnow.artifacts import read_tensors  # noqa: E402
from winnow.config.parts import Compute  # noqa: E402
from winnow.pipelines.robust_bert import inputs  # noqa: E402
from winnow.text import evaluate, grammar  # noqa: E402
from winnow.text.batches import encode  # noqa: E402
from winnow.text.data import Examples  # noqa: E402
from winnow.train import ranks  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny model brought in, with a head."""
    folder = tmp_path_factory.mktemp("settings")
    saved(folder / "hf", *model_of("bert"))
    assert bring_in(folder, folder / "hf") == 0
    return folder


def results_of(stage, folder, config, name, out):
    files = {"model": folder / "in/model.safetensors", out: folder / name / "model.safetensors"}
    assert run(stage, folder, config, **files, metrics=folder / f"{name}.json") == 0
    return read_tensors(folder / name / "model.safetensors"), json.loads((folder / f"{name}.json").read_text())[
        "epochs"
    ]


FREELB = {**TASK, "adversary": {"steps": 2}}
SEARCH = {**FREELB, "masks": {}, "keep_epochs": [1]}


@pytest.mark.parametrize(
    ("stage", "config", "out"), [("finetune_text", FREELB, "out"), ("search_robust_ticket", SEARCH, "scores")]
)
@pytest.mark.parametrize(("part", "change"), [("train", {"label_smoothing": 0.9}), ("compute", {"precision": "bf16"})])
def test_adversarial_training_follows_label_smoothing_and_precision(made, tmp_path, stage, config, out, part, change):
    name = f"{stage}-{part}"
    plain = results_of(stage, made, config, f"{name}-plain", out)[0]
    set_ = results_of(stage, made, {**config, part: {**config[part], **change}}, name, out)[0]
    assert any(not torch.equal(plain[n], set_[n]) for n in plain)


@pytest.mark.parametrize(("part", "change"), [("train", {"label_smoothing": 0.9}), ("compute", {"precision": "bf16"})])
def test_pretraining_follows_label_smoothing_and_precision(tmp_path, part, change):
    weights = []
    for name, set_ in (("plain", {}), ("set", change)):
        train = {**TRAIN, **(set_ if part == "train" else {})}
        tiny = {"source": "tiny", "layers": 1, "hidden": 16, "heads": 2, "intermediate": 32}
        config = {
            "model": {**tiny, "pretraining": {"sentences": 60, "train": train}}, "data": DATA,
            "compute": set_ if part == "compute" else {},
        }  # fmt: skip
        assert run("import_text_model", tmp_path, config, out=tmp_path / name / "model.safetensors") == 0
        weights.append(read_tensors(tmp_path / name / "model.safetensors"))
    word = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(weights[0][word], weights[1][word])


@pytest.mark.parametrize(
    ("stage", "config", "files"),
    [
        ("search_robust_ticket", SEARCH, {"scores": "s", "metrics": "m"}),
        (
            "attack_text",
            {"data": DATA, "attack": {"recipe": "deepwordbug", "candidates": "none"}},
            {"out": "o", "metrics": "m"},
        ),
        ("import_text_model", {"model": {"source": "tiny"}, "data": DATA}, {"out": "o/model.safetensors"}),
    ],
)
def test_stages_that_never_compile_refuse_the_setting(made, capsys, stage, config, files):
    model = {} if stage == "import_text_model" else {"model": made / "in/model.safetensors"}
    assert run(stage, made, {**config, "compute": {"compile": True}}, **model, **files) == 2
    assert "compute.compile" in capsys.readouterr().err


def test_evaluation_is_shared_out_by_batches(made, monkeypatch):
    model, tokenizer = model_of("bert")
    texts, labels = grammar.sentences(50, 0, "shares")
    data = encode(tokenizer, Examples(texts, None, labels), LENGTH)
    monkeypatch.setattr(evaluate, "EVAL_BATCH", 8)
    with torch.no_grad():
        right = [int(model.eval()(**{k: v for k,
            v in data.batch(np.array([i]), CPU).items() if k != "labels"}).logits.argmax() == y)
                 for i, y in enumerate(labels)]  # fmt: skip
    assert 0 < sum(right) < 50
    assert evaluate.accuracy(model, data, Compute(), CPU) == pytest.approx(2.0 * sum(right))
    monkeypatch.setattr(ranks, "size", lambda: 3)
    monkeypatch.setattr(ranks, "total", lambda count: count)
    calls, parts, forward = [], [], type(model).forward
    monkeypatch.setattr(
        type(model), "forward", lambda self, *a, **k: calls.append(len(k["input_ids"])) or forward(self, *a, **k)
    )
    for rank in range(3):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        parts.append(evaluate.accuracy(model, data, Compute(), CPU))
    assert len(calls) == 7 and sum(calls) == 50  # each batch once, over all processes
    assert sum(parts) == pytest.approx(2.0 * sum(right))


def test_an_attack_takes_all_classes_of_a_sorted_file_and_says_which_rows(made, tmp_path):
    if importlib.util.find_spec("textattack") is None:  # importing it here would pass over the shims
        pytest.skip("textattack is not installed")
    texts, labels = grammar.sentences(60, 0, "sorted")
    rows = sorted(zip(labels.tolist(), texts, strict=True))
    (tmp_path / "t.tsv").write_text("sentence\tlabel\n" + "".join(f"{t}\t{y}\n" for y, t in rows))
    data = {"dataset": "file", "train_path": "t.tsv", "test_path": "t.tsv", "max_length": LENGTH, "test_examples": 30}
    attack = {"data": data, "attack": {"recipe": "deepwordbug", "candidates": "none"}, "examples": 10, "compute": {}}
    found = {}
    for selection in ("stratified", "first"):
        files = {"out": tmp_path / selection, "metrics": tmp_path / "m.json", "model": made / "in/model.safetensors"}
        assert run("attack_text", tmp_path, {**attack, "selection": selection}, **files) == 0
        found[selection] = [json.loads(line) for line in (tmp_path / selection).read_text().splitlines()]
        assert all((r["label"], r["original"]) == rows[r["row"]] for r in found[selection])
    assert [r["label"] for r in found["stratified"]] == [0] * 5 + [1] * 5
    assert [r["index"] for r in found["first"]] == list(range(10)) and {r["label"] for r in found["first"]} == {0}


def test_the_files_of_a_local_model_are_inputs_of_its_import(made, tmp_path):
    def section(path):
        return SimpleNamespace(model=SimpleNamespace(path=path))

    files = {str(made / "hf" / n) for n in ("config.json", "model.safetensors", "tokenizer.json")}
    assert files <= set(inputs.model_inputs(section("hf"), str(made)))
    assert files <= set(inputs.model_inputs(section(str(made / "hf")), str(tmp_path)))
    assert inputs.model_inputs(section(None), "data") == inputs.model_inputs(section("bert-base-uncased"), "data") == []
