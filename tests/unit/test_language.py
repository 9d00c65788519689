"""Language models: what is read, what networks see, and the rare-gems stages over words."""

from __future__ import annotations

import importlib
import itertools
import json
import math

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")

from winnow.artifacts import read_json, read_metadata, read_tensors  # noqa: E402
from winnow.config.gems import Search  # noqa: E402
from winnow.config.parts import Compute, Corpus, Model, Train  # noqa: E402
from winnow.config.root import load as load_config  # noqa: E402
from winnow.errors import WinnowError  # noqa: E402
from winnow.gems.search import search  # noqa: E402
from winnow.language import corpus  # noqa: E402
from winnow.language.corpus import Windows  # noqa: E402
from winnow.pipelines.rare_gems.released import read_published  # noqa: E402
from winnow.project import ROOT  # noqa: E402
from winnow.ticket import Ticket  # noqa: E402
from winnow.vision import models  # noqa: E402
from winnow.vision.evaluate import loss_and_accuracy  # noqa: E402

DATA = {"dataset": "sentences", "window": 20, "train_words": 6000}
MODEL = {"arch": "transformer", "language": {"size": 16, "hidden": 16, "layers": 1, "dropout": 0.0}}
TRAIN = {"epochs": 2, "batch_size": 20, "optimizer": "adam", "lr": 0.01, "clip_norm": 0.25}
SHARED = {"data": DATA, "compute": {}, "seed": 0}
CPU = torch.device("cpu")


def run(name, config, folder, **files):
    arguments = ["--config", json.dumps(config), "--scratch", str(folder / "s"), "--log-level", "error"]
    arguments += ["--device", "cpu", "--data-root", str(folder)]
    for key, path in files.items():
        arguments += [f"--{key}", str(path)]
    return importlib.import_module(f"winnow.stages.{name}").stage.run(arguments)


def wikitext(folder, **texts):
    folder.mkdir(exist_ok=True)
    given = {"train": "a b c\n\n b a\n", "valid": "a b\n", "test": "c a\n", **texts}
    for split, text in given.items():
        (folder / f"wiki.{split}.tokens").write_text(text)
    return Corpus(dataset="wikitext", path=folder.name)


def test_words_are_numbered_as_they_come_and_lines_end(tmp_path):
    words = corpus.load(wikitext(tmp_path / "w"), tmp_path)
    assert words.vocabulary == ["a", "b", "c", "<eos>"] and words.num_classes == 4
    assert words.train.tolist() == [0, 1, 2, 3, 3, 1, 0, 3] and words.test.tolist() == [2, 0, 3]
    assert words.chance == pytest.approx(100 / 3)  # <eos> is the commonest word


def test_a_word_that_training_lacks_is_unknown(tmp_path):
    words = corpus.load(wikitext(tmp_path / "w", test="z a\n"), tmp_path)
    assert words.vocabulary[-1] == "<unk>" and words.test.tolist() == [4, 0, 3]
    known = corpus.load(wikitext(tmp_path / "w", train="a <unk> b\n", valid="b\n", test="z\n"), tmp_path)
    assert known.vocabulary == ["a", "<unk>", "b", "<eos>"] and known.test.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("texts", "said"), [({"train": "\n \n"}, "holds no word"), ({"valid": None}, "neither wiki.valid.tokens nor")]
)
def test_files_that_are_no_text_are_named(tmp_path, texts, said):
    data = wikitext(tmp_path / "w", **{k: v for k, v in texts.items() if v is not None})
    for split in (k for k, v in texts.items() if v is None):
        (tmp_path / f"w/wiki.{split}.tokens").unlink()
    with pytest.raises(WinnowError, match=said):
        corpus.load(data, tmp_path)


def test_windows_hold_every_word_of_a_column_once_and_its_successor():
    words = np.arange(47)
    windows = Windows(words, 4, 5, CPU)  # columns of 11; 3 words have no place
    batches = list(windows.epoch(0))
    assert [x.shape[1] for x, _ in batches] == [5, 5] and len(batches) == windows.steps_per_epoch
    x, y = (torch.cat(parts, dim=1) for parts in zip(*batches, strict=True))
    assert torch.equal(x, torch.arange(44).view(4, 11)[:, :-1]) and torch.equal(y, x + 1)
    assert torch.equal(next(windows.epoch(3, first=1))[0], batches[1][0])
    assert torch.equal(next(windows.epoch(0, share=lambda n: slice(1, 3)))[0], batches[0][0][1:3])
    with pytest.raises(WinnowError, match="too short for 30 columns"):
        Windows(words, 30, 5, CPU)


@pytest.mark.parametrize("arch", ["transformer", "lstm"])
def test_no_network_sees_the_word_that_it_shall_foretell(arch):
    torch.manual_seed(0)
    model = models.build(Model(arch=arch, language={"size": 8, "hidden": 12, "layers": 2}), 11).eval()
    words = torch.randint(0, 11, (3, 7))
    logits = model(words)
    assert logits.shape == (3, 11, 7)
    for at in range(7):
        changed = words.clone()
        changed[:, at] = (words[:, at] + 1) % 11
        differs = (model(changed) - logits).abs().amax(dim=(0, 1)) > 1e-6
        assert not differs[:at].any() and differs[at:].all()


def test_the_lstm_is_torch_s():
    torch.manual_seed(0)
    model = models.build(Model(arch="lstm", language={"size": 8, "hidden": 12, "layers": 1, "heads": 1}), 11).eval()
    reference = torch.nn.LSTM(8, 12, bias=False, batch_first=True)
    reference.weight_ih_l0.data, reference.weight_hh_l0.data = model.layers[0].ih.weight, model.layers[0].hh.weight
    words = torch.randint(0, 11, (3, 7))
    expected = model.decoder(reference(model.encoder(words))[0]).transpose(1, 2)
    assert torch.allclose(model(words), expected, atol=1e-6)


def test_the_transformer_is_the_released_one():
    """Its layers by name and size; attention as softmax(q k / sqrt d) over what came before, written out."""
    torch.manual_seed(0)
    model = models.build(Model(arch="transformer", language={"size": 8, "hidden": 12, "layers": 1}), 11).eval()
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters()}
    block = "transformer_encoder.layers.0"
    assert shapes == {
        "encoder.weight": (11, 8), "decoder.weight": (11, 8), f"{block}.mlp.fc1.weight": (12, 8),
        f"{block}.mlp.fc2.weight": (8, 12),
        **{f"{block}.attn.{n}.weight": (8, 8) for n in ("query", "key", "value")},
    }  # fmt: skip
    words = torch.randint(0, 11, (2, 5))
    position = torch.zeros(5, 8)
    for at, i in itertools.product(range(5), range(4)):
        angle = at / 10000 ** (2 * i / 8)
        position[at, 2 * i], position[at, 2 * i + 1] = math.sin(angle), math.cos(angle)
    x = model.encoder(words) * math.sqrt(8) + position
    layer = model.transformer_encoder["layers"][0]
    normed = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        q, k, v = (normed @ getattr(layer.attn, n).weight.T for n in ("query", "key", "value"))
        scores = (q[..., part] @ k[..., part].transpose(1, 2)) / 2.0
        scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf"))
        heads.append(scores.softmax(-1) @ v[..., part])
    x = x + torch.cat(heads, dim=-1)
    normed = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5)
    x = x + torch.nn.functional.gelu(normed @ layer.mlp.fc1.weight.T) @ layer.mlp.fc2.weight.T
    assert torch.allclose(model(words), (x @ model.decoder.weight.T).transpose(1, 2), atol=1e-5)


def test_perplexity_is_that_of_the_words_counted_one_by_one():
    class Unigram(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = torch.nn.Parameter(torch.tensor([2.0, 0.0, -1.0]))

        def forward(self, words):
            return self.logits[None, :, None].expand(len(words), -1, words.shape[1])

    words = np.array([0, 1, 2, 0, 0, 1, 2, 2, 1, 0, 0, 0])
    model, windows = Unigram(), Windows(words, 2, 4, CPU)
    loss, right = loss_and_accuracy(model, windows, Compute())
    foretold = np.concatenate([words[1:6], words[7:12]])
    logs = torch.log_softmax(model.logits, 0)
    assert loss == pytest.approx(-float(logs[torch.from_numpy(foretold)].mean().detach()), abs=1e-6)
    assert right == pytest.approx(100 * np.mean(foretold == 0))


@pytest.fixture(scope="module")
def gem(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    init = folder / "init.safetensors"
    assert run("gem_init", {"data": DATA, "model": MODEL, "init": {}, "seed": 0}, folder, out=init) == 0
    search = {"algo": "hc_iter", "target_sparsity": 30, "iter_period": 1, "lmbda": 1e-6}
    files = {"out": folder / "t.mask.safetensors", "order": folder / "order", "metrics": folder / "search.json"}
    train = {**TRAIN, "epochs": 5, "optimizer": "adam", "lr": 0.05}
    assert run("gem_search", {**SHARED, "search": search, "train": train}, folder, init=init, **files) == 0
    return folder


def test_a_gem_beats_a_random_ticket_before_any_training_and_after(gem, tmp_path):
    """The paper's claim, on a network of seconds; docs/results/rare_gems_language.md has the experiment."""
    init, found = gem / "init.safetensors", {}
    tickets = {"gem": gem / "t.mask.safetensors", "random": tmp_path / "r.mask.safetensors"}
    cut = {"method": "random", "remaining_percent": 30, "seed": 0}
    assert run("prune", cut, gem, weights=init, out=tickets["random"]) == 0
    assert Ticket.load(tickets["gem"]).remaining_percent == pytest.approx(30, abs=0.1)
    for name, mask in tickets.items():
        files = {"out": tmp_path / f"{name}.safetensors", "metrics": tmp_path / f"{name}.json"}
        job = {**SHARED, "train": TRAIN, "keep": "best", "measure": True}
        assert run("train", job, gem, init=init, mask=mask, **files) == 0
        found[name] = read_json(files["metrics"])
        weights = read_tensors(files["out"])
        assert all(not weights[n][~m].any() for n, m in Ticket.load(mask).masks.items())
        assert not torch.equal(weights["encoder.weight"], read_tensors(init)["encoder.weight"])
        course = [e["val_perplexity"] for e in found[name]["epochs"]]
        assert found[name]["val_best"] == min(course)
    for when in ("before", "after"):
        assert found["gem"][f"perplexity_{when}"] < 0.9 * found["random"][f"perplexity_{when}"]
        assert found["gem"][f"acc_{when}"] > found["random"][f"acc_{when}"]
    assert found["gem"]["perplexity_after"] < found["gem"]["perplexity_before"] < found["gem"]["num_classes"]
    assert found["gem"]["chance"] == pytest.approx(corpus.load(Corpus(**DATA), gem).chance)


def test_a_search_moves_no_weight(gem):
    """The embedding of the released code trains along with the scores; here the ticket is one of the network as
    drawn.
    """
    data, start = Corpus(**DATA), read_tensors(gem / "init.safetensors")
    model, _ = models.load_pretrained(gem / "init.safetensors")
    words = corpus.load(data, gem)
    train = Train(**{**TRAIN, "epochs": 2})
    config = Search(algo="hc_iter", target_sparsity=50, iter_period=1)
    found, _ = search(model, Windows(words.train, 20, 20, CPU), config=config, train=train, compute=Compute(), seed=0)
    assert torch.equal(model.encoder.weight, start["encoder.weight"])
    for name, kept in found.scored.views(found.scored.weights).items():
        assert torch.equal(kept, start[name])


def test_a_decoder_that_stays_is_scored_but_never_pruned_nor_counted(gem, tmp_path):
    model = {**MODEL, "language": {**MODEL["language"], "decoder_stays": True}}
    init = tmp_path / "init.safetensors"
    assert run("gem_init", {"data": DATA, "model": model, "init": {}, "seed": 0}, gem, out=init) == 0
    assert "decoder.weight" not in read_metadata(init)["prunable"]
    assert read_tensors(init)["decoder.weight"].abs().max() <= 0.1  # as the network draws it, not as init says
    search = {"algo": "hc_iter", "target_sparsity": 30, "iter_period": 1}
    files = {"out": tmp_path / "t.mask.safetensors", "order": tmp_path / "order", "metrics": tmp_path / "m.json"}
    assert (
        run("gem_search", {**SHARED, "search": search, "train": {**TRAIN, "epochs": 3}}, gem, init=init, **files) == 0
    )
    ticket = Ticket.load(files["out"])
    assert "decoder.weight" not in ticket.arrays and ticket.remaining_percent == pytest.approx(30, abs=0.5)


def configuration(**changes):
    experiment = {
        "name": "words", "dataset": "words", "data": DATA, "model": MODEL, "targets": [30], "finetune": TRAIN,
        "branches": [{"name": "random", "algo": "random"}], **changes,
    }  # fmt: skip
    return {"rare_gems": {"seeds": [0], "experiments": [experiment]}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"arch": "resnet8"}}, "model.arch: resnet8 sees images, data.dataset sentences has words"),
        ({"data": {"dataset": "digits", "val_images": 9}}, "model.arch: transformer reads words"),
        ({"model": {"arch": "resnet8", "language": {}}}, "language: sizes of transformer and lstm"),
        ({"model": {"arch": "lstm", "language": {"size": 5}}}, "size 5 is not a multiple of heads 2"),
        ({"branches": [{"name": "s", "algo": "snip"}]}, "snip looks at images"),
        ({"data": {"dataset": "wikitext"}}, "path: required for dataset wikitext"),
        ({"data": {"dataset": "wikitext", "path": "no"}}, "holds neither wiki.train.tokens nor train.txt"),
        ({"data": {"dataset": "wikitex", "path": "no"}}, "did you mean 'wikitext'"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_job(changes, said):
    assert load_config(configuration()).rare_gems.experiments[0].data.window == 20
    with pytest.raises(WinnowError, match=said) as told:
        load_config(configuration(**changes))
    assert "experiments[0]" in str(told.value)


def test_the_released_transformer_is_read_as_its_code_runs_it():
    """Two blocks of 200, 400,000 weights that count; the rate is constant in the search, and falls after 3 epochs of
    fine-tuning.
    """
    path = str(ROOT / "config/paper/rare_gems/transformer_5.yaml")
    experiment = read_published(path)
    branch = experiment.branches[0]
    assert experiment.data == Corpus(dataset="wikitext", path="wikitext-2", window=35)
    assert (branch.train.schedule, branch.train.lr, branch.train.clip_norm, branch.train.weight_decay) == (
        "constant", 5.0, 0.25, 5e-4,
    )  # fmt: skip
    assert (experiment.finetune.milestones, experiment.finetune.gamma, experiment.finetune.lr) == ([3], 0.25, 5.0)
    assert experiment.targets == [5.0] and branch.search.lmbda == 1e-5 and branch.sanity
    model = models.build(experiment.model, 20)
    counted = {n: p.numel() for n, p in model.named_parameters() if "encoder." in n and n != "encoder.weight"}
    assert len(counted) == 10 and sum(counted.values()) == 400_000
    file = yaml.safe_load((ROOT / "config/paper/rare_gems/transformer_5.yaml").read_text())
    assert file["arch"] == "transformer" and "dataset" not in file
