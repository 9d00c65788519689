"""The text stages beyond the default: pairs of sentences with truncation, row and matrix masks, scores shared by many
weights.
"""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_text_families import run as stage  # noqa: E402

from winnow.artifacts import read_arrays  # noqa: E402
from winnow.config.parts import Compute  # noqa: E402
from winnow.config.text import TextData, TextModel  # noqa: E402
from winnow.text import compat, grammar  # noqa: E402
from winnow.text.batches import encode  # noqa: E402
from winnow.text.data import load_text  # noqa: E402
from winnow.text.models import load_classifier, save_classifier, tiny_bert, vocabulary  # noqa: E402
from winnow.ticket import Ticket  # noqa: E402

TRAIN = {"epochs": 1, "batch_size": 16, "optimizer": "adamw", "lr": 1e-3}
TINY = TextModel(source="tiny", layers=1, hidden=16, heads=2, intermediate=32)
LENGTH = 14  # cuts most pairs
PAIRS = {
    "dataset": "file", "train_path": "pairs.tsv", "test_path": "pairs.tsv", "text_column": "one", "pair_column": "two",
    "max_length": LENGTH, "val_fraction": 0.1,
}  # fmt: skip


def run(name, folder, config, **files):
    assert stage(name, folder, config, **files) == 0


@pytest.fixture
def pairs(tmp_path):
    """A table of sentence pairs (label: is the second one positive?) and an untrained classifier for it."""
    texts, labels = grammar.sentences(60, 0, "pairs")
    lines = [f"{texts[-1 - i]}\t{text}\t{labels[i]}" for i, text in enumerate(texts)]
    (tmp_path / "pairs.tsv").write_text("one\ttwo\tlabel\n" + "\n".join(lines) + "\n")
    model, tokenizer = tiny_bert(TINY, 2, vocabulary(texts, grammar.lexicon(), 4000), LENGTH, 0)
    save_classifier(tmp_path / "pre/model.safetensors", model, tokenizer, {})
    return tmp_path


def test_pairs_are_trained_searched_and_attacked_with_their_token_types(pairs, monkeypatch):
    if importlib.util.find_spec("textattack") is None:
        pytest.skip("textattack is not installed")
    compat.textattack()
    from winnow.text.attacks.parts import Victim

    model, tokenizer = load_classifier(pairs / "pre")
    test = load_text(TextData(**PAIRS), pairs, wanted=("test",))["test"]
    trained = encode(tokenizer, test, LENGTH).batch(np.arange(8), torch.device("cpu"))
    assert (trained["attention_mask"].sum(1) == LENGTH).any() and trained["token_type_ids"].any(1).all()
    seen = []
    forward = type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda self, *a, **k: seen.append(k) or forward(self, *a, **k))
    Victim(model, tokenizer, LENGTH, Compute(), torch.device("cpu"))(
        list(zip(test.texts[:8], test.pairs[:8], strict=True))
    )
    for name in ("input_ids", "token_type_ids", "attention_mask"):  # the attack sees the text exactly as training did
        assert torch.equal(seen[0][name], trained[name])

    task = {"data": PAIRS, "train": TRAIN, "compute": {}, "seed": 0}
    dense, out = pairs / "dense/model.safetensors", {"metrics": pairs / "m.json"}
    run("finetune_text", pairs, task, model=pairs / "pre/model.safetensors", out=dense, **out)
    search = {**task, "masks": {}, "adversary": {"steps": 1}, "keep_epochs": [1]}
    seen.clear()
    run("search_robust_ticket", pairs, search, model=dense, scores=pairs / "scores", **out)
    assert seen and all(k["token_type_ids"].any() for k in seen)
    for fixed in ("none", "first", "second"):
        attack = {"data": {**PAIRS, "fixed_text": fixed}, "attack": {"recipe": "textfooler", "candidates": "embedded"}}
        run(
            "attack_text",
            pairs,
            {**attack, "examples": 10, "compute": {}},
            model=dense,
            out=pairs / f"{fixed}.jsonl",
            **out,
        )
        rows = [json.loads(line) for line in (pairs / f"{fixed}.jsonl").read_text().splitlines()]
        touched = [any(r["original"][side] != r["perturbed"][side] for r in rows) for side in (0, 1)]
        assert touched == [fixed != "first", fixed != "second"]


@pytest.mark.parametrize(("granularity", "axes"), [("row", 1), ("matrix", (0, 1))])
def test_structured_masks_go_through_search_draw_and_retraining(pairs, granularity, axes):
    task = {
        "data": {"dataset": "embedded", "max_length": LENGTH, "train_examples": 64},
        "train": TRAIN,
        "compute": {},
        "seed": 0,
    }
    pre = pairs / "pre/model.safetensors"
    search = {**task, "masks": {"granularity": granularity}, "adversary": {"steps": 1}, "keep_epochs": [1]}
    run("search_robust_ticket", pairs, search, model=pre, scores=pairs / "scores", metrics=pairs / "m.json")
    assert all(s.shape == (s.shape[0], 1) for s in read_arrays(pairs / "scores").values())
    run("draw_ticket", pairs, {"removed_fraction": 0.3}, scores=pairs / "scores", out=pairs / "t.mask.safetensors")
    ticket = Ticket.load(pairs / "t.mask.safetensors")
    assert ticket.total - ticket.kept == round(0.3 * ticket.total)
    parts = [m.all(axis=axes) | ~m.any(axis=axes) for m in ticket.arrays.values()]
    # only the part that meets the exact count is split
    assert sum(int((~np.asarray(whole)).sum()) for whole in parts) <= 1
    files = {"model": pre, "mask": pairs / "t.mask.safetensors", "out": pairs / "r/model.safetensors"}
    run("finetune_text", pairs, task, **files, metrics=pairs / "m.json")
    weights = load_classifier(pairs / "r")[0]
    assert all(not weights.get_parameter(n)[~mask].any() for n, mask in ticket.masks.items())
