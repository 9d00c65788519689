"""Every kind of BERT-like model through every text stage, and what is refused when one is brought in."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shutil

import pytest

torch = pytest.importorskip("torch")

from winnow.artifacts import read_json, read_tensors  # noqa: E402
from winnow.config.text import FreeLB, TextModel  # noqa: E402
from winnow.text import compat, grammar  # noqa: E402
from winnow.text.batches import encode  # noqa: E402
from winnow.text.data import Examples  # noqa: E402
from winnow.text.freelb import AdversarialStep  # noqa: E402
from winnow.text.models import load_classifier, tiny_bert, token_types, vocabulary  # noqa: E402
from winnow.ticket import Ticket  # noqa: E402

LENGTH = 24
KINDS = ("bert", "roberta", "distilbert", "electra", "albert", "modernbert", "deberta_v2", "xlm_roberta", "gpt2")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SPECIFIC = {
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "electra": {**SIZES, "embedding_size": 8},
    "albert": {**SIZES, "embedding_size": 8},
    "roberta": {**SIZES, "max_position_embeddings": LENGTH + 1, "type_vocab_size": 1},  # position 0 is the padding's
    "xlm_roberta": {**SIZES, "max_position_embeddings": LENGTH + 1, "type_vocab_size": 1},
    "mpnet": {**SIZES, "max_position_embeddings": LENGTH + 2},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 32},
    "deberta_v2": {
        **SIZES, "type_vocab_size": 0, "relative_attention": True, "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
        "max_relative_positions": -1, "share_att_key": True, "norm_rel_ebd": "layer_norm", "pooler_hidden_size": 16,
    },
}  # fmt: skip
CLASSES = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert", "electra": "Electra", "albert": "Albert",
           "modernbert": "ModernBert", "deberta_v2": "DebertaV2", "xlm_roberta": "XLMRoberta", "gpt2": "GPT2",
           "mpnet": "MPNet"}  # fmt: skip
DATA = {"dataset": "embedded", "max_length": LENGTH, "train_examples": 48, "val_fraction": 0.02}
TRAIN = {"epochs": 1, "batch_size": 16, "optimizer": "adamw", "lr": 1e-3, "clip_norm": 1.0}
TASK = {"data": DATA, "train": TRAIN, "compute": {}, "seed": 0}


def model_of(kind, task="SequenceClassification", labels=2, **settings):
    """A tiny model of a kind with seeded random weights, as transformers builds it, and a tokenizer."""
    transformers = compat.transformers()
    texts, _ = grammar.sentences(60, 0, "families")
    tokenizer = tiny_bert(TextModel(source="tiny"), 2, vocabulary(texts, grammar.lexicon(), 4000), LENGTH, 0)[1]
    common = {"vocab_size": len(tokenizer), "max_position_embeddings": LENGTH, "pad_token_id": tokenizer.pad_token_id}
    ends = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    sizes = {**common, **SPECIFIC.get(kind, SIZES), **(ends if kind == "modernbert" else {}), **settings}
    config = getattr(transformers, f"{CLASSES[kind]}Config")(num_labels=labels, **sizes)
    torch.manual_seed(0)
    name = f"{CLASSES[kind]}{'For' if task else 'Model'}{task}"
    return getattr(transformers, name)(config), tokenizer


def saved(folder, model, tokenizer):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run(name, folder, config, **files):
    arguments = [
        "--config",
        json.dumps(config),
        "--device",
        "cpu",
        "--data-root",
        str(folder),
        "--scratch",
        str(folder / "s"),
    ]
    for key, value in files.items():
        arguments += [f"--{key}", str(value)]
    return importlib.import_module(f"winnow.stages.{name}").stage.run(arguments)


def bring_in(folder, model, out="in", prefix=None, **data):
    config = {
        "model": {"source": "pretrained", "path": str(model), "prefix": prefix},
        "data": {**DATA, **data},
        "seed": 0,
    }
    return run("import_text_model", folder, config, out=folder / out / "model.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_goes_through_every_stage(tmp_path, kind):
    if importlib.util.find_spec("textattack") is None:
        pytest.skip("textattack is not installed")
    source = saved(tmp_path / "hf", *model_of(kind))
    assert bring_in(tmp_path, source) == 0
    given, taken = read_tensors(source / "model.safetensors"), read_tensors(tmp_path / "in/model.safetensors")
    base = load_classifier(tmp_path / "in")[0].base_model_prefix
    assert any(n.startswith(f"{base}.") for n in given)
    assert all(torch.equal(given[n], taken[n]) for n in given if n.startswith(f"{base}."))
    metrics = {"metrics": tmp_path / "m.json"}
    dense, mask = tmp_path / "dense/model.safetensors", tmp_path / "t.mask.safetensors"
    pre = tmp_path / "in/model.safetensors"
    assert run("finetune_text", tmp_path, TASK, model=pre, out=dense, **metrics) == 0
    free = {**TASK, "adversary": {"steps": 2}}
    assert run("finetune_text", tmp_path, free, model=pre, out=tmp_path / "free/model.safetensors", **metrics) == 0
    search = {**TASK, "train": {**TRAIN, "lr": 0.1}, "masks": {}, "adversary": {"steps": 2}, "keep_epochs": [1]}
    assert run("search_robust_ticket", tmp_path, search, model=dense, scores=tmp_path / "scores", **metrics) == 0
    assert run("draw_ticket", tmp_path, {"removed_fraction": 0.3}, scores=tmp_path / "scores", out=mask) == 0
    retrained = tmp_path / "r/model.safetensors"
    assert run("finetune_text", tmp_path, TASK, model=pre, mask=mask, out=retrained, **metrics) == 0
    weights = read_tensors(retrained)
    assert all(not weights[n][~m].any() for n, m in Ticket.load(mask).masks.items())
    attack = {"data": DATA, "attack": {"recipe": "textfooler", "candidates": "embedded"}, "examples": 6, "compute": {}}
    assert run("attack_text", tmp_path, attack, model=retrained, out=tmp_path / "rows", **metrics) == 0
    assert read_json(tmp_path / "m.json")["examples"] == 6


@pytest.mark.parametrize("kind", KINDS)
def test_the_adversary_starts_from_the_outputs_for_the_words(kind):
    """With one step from the unperturbed embeddings FreeLB's loss and gradients are those of plain training."""
    model, tokenizer = model_of(kind)
    model.eval()
    texts, labels = grammar.sentences(8, 0, "words")
    batch = encode(tokenizer, Examples(texts, None, labels), LENGTH, token_types(model)).batch(
        labels * 0 + range(8), torch.device("cpu")
    )
    assert ("token_type_ids" in batch) == (kind in ("bert", "electra", "albert"))
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    plain = torch.nn.functional.cross_entropy(model(**inputs).logits, batch["labels"], label_smoothing=0.2)
    plain.backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    loss = AdversarialStep(model, FreeLB(steps=1, init_magnitude=0.0), label_smoothing=0.2)(batch)
    assert loss == pytest.approx(plain.item(), abs=1e-6)
    for name, gradient in expected.items():
        assert torch.allclose(model.get_parameter(name).grad, gradient, atol=1e-6), name


@pytest.mark.parametrize("prefix", ["module.bert.", "model.bert.", "encoder_model.", "", "_orig_mod.module.net.bert."])
def test_names_behind_a_prefix_are_refused_until_it_is_said(tmp_path, prefix, capsys):
    source = saved(tmp_path / "hf", *model_of("bert"))
    given = read_tensors(source / "model.safetensors")
    renamed = {prefix + n.removeprefix("bert."): v for n, v in given.items() if n.startswith("bert.")}
    renamed |= {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
                for n, v in renamed.items() if "LayerNorm" in n}  # fmt: skip
    renamed = {n: v for n, v in renamed.items() if not n.endswith(("LayerNorm.weight", "LayerNorm.bias"))}
    (source / "model.safetensors").unlink()
    torch.save({"state_dict": renamed}, source / "pytorch_model.bin")
    if prefix:
        assert bring_in(tmp_path, source) == 2
        assert f"set model.prefix: {prefix!r}" in capsys.readouterr().err
    assert bring_in(tmp_path, source, prefix=prefix or None) == 0
    taken = read_tensors(tmp_path / "in/model.safetensors")
    assert all(torch.equal(taken[n], v) for n, v in given.items() if n.startswith("bert."))


@pytest.mark.parametrize("kind", ["bert", "roberta", "albert", "modernbert", "distilbert", "electra"])
def test_what_a_language_model_lacks_is_drawn_from_the_seed_and_said(tmp_path, kind, capsys):
    source = saved(tmp_path / "hf", *model_of(kind, "MaskedLM"))
    for state, out in enumerate(("one", "two")):
        torch.manual_seed(state)
        assert bring_in(tmp_path, source, out) == 0
    one, two = (read_tensors(tmp_path / out / "model.safetensors") for out in ("one", "two"))
    assert all(torch.equal(one[n], two[n]) for n in one)
    pooler = [n for n in one if "pooler" in n]
    assert bool(pooler) == (kind in ("bert", "albert"))
    said = capsys.readouterr().err
    assert all(n in said for n in pooler)


@pytest.mark.parametrize("kind", ["modernbert", "bert", "roberta"])
def test_a_bare_encoder_gets_a_head_from_the_seed(tmp_path, kind, capsys):
    source = saved(tmp_path / "hf", *model_of(kind, ""))
    assert bring_in(tmp_path, source) == 0
    given, taken = read_tensors(source / "model.safetensors"), read_tensors(tmp_path / "in/model.safetensors")
    base = load_classifier(tmp_path / "in")[0].base_model_prefix
    assert all(torch.equal(taken[f"{base}.{n}"], v) for n, v in given.items() if f"{base}.{n}" in taken)
    if kind == "modernbert":  # its head is pre-trained, where the file has it
        assert (taken["head.norm.weight"] == 1).all() and taken["head.dense.weight"].std() < 0.1
        assert "holds no head.dense.weight, head.norm.weight: drawn from seed 0" in capsys.readouterr().err


def test_a_tokenizer_that_pads_with_another_token_is_refused(tmp_path, capsys):
    source = saved(tmp_path / "hf", *model_of("mpnet"))  # its padding is token 1, the tokenizer's 0
    assert bring_in(tmp_path, source) == 2
    assert "pads with token 0, the model with 1" in capsys.readouterr().err


def half(folder):
    state = read_tensors(folder / "model.safetensors")
    rewrite(folder, {n: v for n, v in state.items() if "layer.1." not in n})


def rewrite(folder, state):
    from safetensors.torch import save_file

    save_file({n: v.clone() for n, v in state.items()}, folder / "model.safetensors", {"format": "pt"})


def edit(folder, **settings):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def change(folder, how):
    rewrite(folder, how(read_tensors(folder / "model.safetensors")))


REFUSED = {
    "a layer missing": (half, {}, r"lack 16 of \d+ encoder tensors.*bert\.encoder\.layer\.1\."),
    "a layer left over": (lambda f: edit(f, num_hidden_layers=1), {},
     r"hold encoder\.layer\.1\..* which config\.json does not know"),
    "pruned by torch": (
        lambda f: change(f, lambda s: {n + ("_orig" if n.endswith("query.weight") else ""): v for n, v in s.items()}),
        {}, r"lack 2 of \d+ encoder tensors",
    ),
    "two encoders": (
        lambda f: change(f, lambda s: {f"{side}.{n}": v for n, v in s.items() for side in ("query", "passage")}), {},
        "hold 2 encoders",
    ),
    "another architecture": (lambda f: edit(f, model_type="modernbert"), {},
     "hold nothing of the encoder|describes no model|lack"),
    "another size": (lambda f: edit(f, intermediate_size=48), {},
     r"intermediate.* is \[32, 16\] in the weights and \[48, 16\]"),
    "not finite": (lambda f: change(f, lambda s: {n: v / 0 for n, v in s.items()}), {}, "values that are not finite"),
    "other classes": (lambda f: None, {"classes": 2, "head": 3}, r"has a head of 3 classes, the task 2"),
    "too few positions": (lambda f: None, {"max_length": 64}, "max_length: 64 tokens, but .* has positions for 24"),
    "git lfs": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize "
                                                       "9\n"),
        {}, "is a Git LFS pointer",
    ),
    "web page": (lambda f: (f / "model.safetensors").write_text("\n<!DOCTYPE html><html></html>"), {}, "is a web page"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), {}, "is empty"),
    "empty config": (lambda f: (f / "config.json").write_bytes(b""), {}, "is empty"),
    "no config": (lambda f: (f / "config.json").unlink(), {}, "holds no config.json"),
    "no weights": (lambda f: (f / "model.safetensors").rename(f / "tf_model.h5"), {},
     "no PyTorch weights.*only tf_model.h5"),
    "cut weights": (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]), {},
     "truncated"),
    "no tokenizer": (lambda f: [p.unlink() for p in f.iterdir() if "token" in p.name or "vocab" in p.name], {},
     "tokenizer"),
    "another tokenizer": (
        lambda f: edit(f, vocab_size=40) or change(f,
         lambda s: {n: v[:40] if "word_emb" in n else v for n, v in s.items()}),
        {}, "its tokenizer has ids up to .* the model 40 word embeddings",
    ),
    "config of a list": (lambda f: (f / "config.json").write_text("[]"), {}, "config.json describes no model"),
    "unknown type": (lambda f: edit(f, model_type="mybert"), {}, "config.json describes no model.*mybert"),
    "a decoder": (lambda f: edit(f, model_type="gpt2"), {}, "no linear layers|hold nothing|describes no model|lack"),
    "impossible heads": (lambda f: edit(f, num_attention_heads=3), {}, "describes no model"),
    "missing shard": (
        lambda f: (f / "model.safetensors").unlink()
        or (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'),
        {}, "model-00001-of-00002.safetensors: missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_at_import(tmp_path, capsys, name):
    harm, data, message = REFUSED[name]
    data = dict(data)
    source = saved(tmp_path / "hf", *model_of("bert", labels=data.pop("head", 2)))
    harm(source)
    assert bring_in(tmp_path, source, **data) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(said) == 1
    assert re.search(message, said[0]), said[0]
    assert not (tmp_path / "in").exists()


def test_code_in_a_model_folder_neither_runs_nor_asks(tmp_path, monkeypatch, capsys):
    source = saved(tmp_path / "hf", *model_of("bert"))
    (source / "modeling_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    maps = {"AutoConfig": "modeling_own.A", "AutoModelForSequenceClassification": "modeling_own.B"}
    edit(source, auto_map=maps)
    settings = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(
        json.dumps({**settings, "auto_map": {"AutoTokenizer": [None, "modeling_own.C"]}})
    )
    assert bring_in(tmp_path, source) == 0  # a type that is known is read as such
    edit(source, model_type="own")
    shutil.rmtree(tmp_path / "in")
    assert bring_in(tmp_path, source) == 2
    assert not (tmp_path / "ran").exists()


def test_a_local_model_is_a_parent(tmp_path):
    source = saved(tmp_path / "hf", *model_of("bert"))
    assert bring_in(tmp_path, source) == 0
    parents = read_json(tmp_path / "in/winnow.json")["parents"].values()
    assert {p["path"] for p in parents} >= {
        str(source / n) for n in ("config.json", "model.safetensors", "tokenizer.json")
    }
