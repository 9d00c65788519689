"""Masked-language-model pre-training of the tiny BERT, and its corpus."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from test_text_stages import DATA, MODEL, TRAIN, run  # noqa: E402

from winnow.artifacts import read_tensors, sha256_file  # noqa: E402
from winnow.text import grammar  # noqa: E402
from winnow.text.pretraining import mask_tokens  # noqa: E402

PRETRAINING = {"sentences": 400, "train": {**TRAIN, "lr": 3e-3, "epochs": 3}}


def test_of_the_tokens_asked_for_80_percent_are_masked_10_random_and_10_kept():
    torch.manual_seed(0)
    ids = torch.full((1000, 1000), 7)
    maskable = torch.ones_like(ids, dtype=torch.bool)
    maskable[:, ::2] = False
    seen, asked = mask_tokens(ids, maskable, 3, torch.tensor([11, 12]))
    assert not asked[~maskable].any() and (seen[~asked] == 7).all()
    assert asked[maskable].float().mean().item() == pytest.approx(0.15, abs=0.003)
    shares = [(seen[asked] == token).float().mean().item() for token in (3, 11, 12, 7)]
    assert shares == pytest.approx([0.8, 0.05, 0.05, 0.1], abs=0.005)


def test_the_corpus_is_seeded_and_names_every_synonym():
    texts = grammar.unlabelled(3000, 0)
    assert texts == grammar.unlabelled(3000, 0) != grammar.unlabelled(3000, 1) and len(texts) == 3000
    assert set(grammar.lexicon()) <= {word for text in texts for word in text.split()}
    reviews, _ = grammar.sentences(600, 0, "test")
    assert len(set(reviews) & set(texts)) < 0.05 * len(reviews)


def test_pretraining_is_deterministic_moves_the_encoder_and_teaches_synonyms(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, epochs in (("raw", 0), ("a", 3), ("b", 3)):
        train = {**PRETRAINING["train"], "epochs": epochs}
        config = {"model": MODEL | {"pretraining": {**PRETRAINING, "train": train}}, "data": DATA}
        assert run("import_text_model", config, out=tmp_path / name / "model.safetensors") == 0
    assert sha256_file(tmp_path / "a/model.safetensors") == sha256_file(tmp_path / "b/model.safetensors")
    raw, made = (read_tensors(tmp_path / n / "model.safetensors") for n in ("raw", "a"))
    assert set(raw) == set(made)  # the language model's head stays behind
    same = {n for n in raw if torch.equal(raw[n], made[n])}
    assert {n for n in same if "token_type" not in n} == {n for n in raw if n.startswith(("classifier", "bert.pooler"))}
    words = {w: i for i, w in enumerate((tmp_path / "a/vocab.txt").read_text().split())}

    def closeness(state):
        table = torch.nn.functional.normalize(state["bert.embeddings.word_embeddings.weight"])
        pairs = [(words[w], words[o]) for w, others in grammar.lexicon().items() for o in others]
        return sum((table[i] @ table[j]).item() for i, j in pairs) / len(pairs)

    assert closeness(made) > closeness(raw) + 0.02


def test_pretraining_of_a_pretrained_model_is_refused(tmp_path, capsys):
    model = {"source": "pretrained", "path": "x", "pretraining": PRETRAINING}
    assert run("import_text_model", {"model": model, "data": DATA}, out=tmp_path / "o/model.safetensors") == 2
    assert "pretraining is for source tiny" in capsys.readouterr().err
