"""Attacks on their real kinds of files: NLTK's data, neighbour lists, vectors in the published layout, WordNet, masked
models.
"""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import json
import pickle
import tarfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if importlib.util.find_spec("textattack") is None:
    pytest.skip("textattack is not installed", allow_module_level=True)

from winnow.config.text import TextModel  # noqa: E402
from winnow.text import compat, grammar  # noqa: E402
from winnow.text.models import save_classifier, tiny_bert, vocabulary  # noqa: E402

DATA = {"dataset": "embedded", "max_length": 24, "test_examples": 12}
TINY = TextModel(source="tiny", layers=1, hidden=16, heads=2, intermediate=32)
TEXTS = grammar.sentences(200, 0, "assets")[0]


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    """An untrained classifier: its decisions are near a tie, so attacks search among many candidates."""
    folder = tmp_path_factory.mktemp("victim")
    model, tokenizer = tiny_bert(TINY, 2, vocabulary(TEXTS, grammar.lexicon(), 4000), 24, 0)
    save_classifier(folder / "m/model.safetensors", model, tokenizer, {})
    return folder / "m/model.safetensors"


@pytest.fixture(scope="module")
def nltk_folder(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nltk")
    with tarfile.open(shared / "data/nltk_data_zips.tar") as archive:
        archive.extractall(folder, filter="data")
    return folder / "nltk_data"


def attack(victim, folder, capsys, config, **assets):
    """Rows of an attack on the embedded task."""
    whole = {"data": DATA, "attack": config, "compute": {}, "seed": 0}
    arguments = [
        "--config",
        json.dumps(whole),
        "--device",
        "cpu",
        "--model",
        str(victim),
        "--scratch",
        str(folder / "scratch"),
    ]
    arguments += ["--out", str(folder / "rows.jsonl"), "--metrics", str(folder / "figures.json")]
    for role, path in assets.items():
        arguments += [f"--{role.replace('_', '-')}", str(path)]
    code = importlib.import_module("winnow.stages.attack_text").stage.run(arguments)
    assert code == 0, capsys.readouterr().err
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def changes(rows):
    """(old word, new word) of every changed position; the attackers here replace one word by one."""
    pairs = [(r["original"].split(), r["perturbed"].split()) for r in rows]
    assert all(len(a) == len(b) for a, b in pairs)
    found = [(a.strip(".,!"), b.strip(".,!")) for old, new in pairs for a, b in zip(old, new, strict=True) if a != b]
    assert found
    return found


def test_nltk_stopwords_and_tags_decide_what_may_change(victim, nltk_folder, tmp_path, capsys):
    """With NLTK's zips as they are published: no stopword changes, and the part of speech stays (nouns and verbs may
    swap).
    """
    compat.textattack()
    config = {"recipe": "textfooler", "candidates": "embedded", "stopwords": "nltk", "same_part_of_speech": True}
    rows = attack(victim, tmp_path, capsys, config, nltk=nltk_folder)
    import nltk
    from nltk.corpus import stopwords

    stay = set(stopwords.words("english"))
    assert not [old for old, _ in changes(rows) if old.lower() in stay]
    for row in rows:
        old, new = ([w.strip(".,!") for w in row[k].split()] for k in ("original", "perturbed"))
        for i in (i for i in range(len(old)) if old[i] != new[i]):
            around = slice(max(i - 4, 0), i + 4)  # the constraint tags a word among its neighbours in the original
            tags = [
                nltk.pos_tag([*old[around][: i - around.start], w, *old[i + 1 : i + 4]], tagset="universal")
                for w in (old[i], new[i])
            ]
            before, after = (t[i - around.start][1] for t in tags)
            assert before == after or {before, after} <= {"NOUN", "VERB"}, (old[i], new[i])


def test_fetching_takes_nltk_from_where_it_lies(nltk_folder, tmp_path, monkeypatch, capsys):
    """Files copied in by hand are taken as they are, with their checksums; no network is asked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets/nltk").symlink_to(nltk_folder)
    config = {
        "attacks": [
            {"recipe": "textfooler", "candidates": "embedded", "stopwords": "nltk", "same_part_of_speech": True}
        ]
    }
    arguments = ["--config", json.dumps(config | {"folder": "assets"}), "--manifest", "manifest.json"]
    assert importlib.import_module("winnow.stages.fetch_attack_assets").stage.run(arguments) == 0, (
        capsys.readouterr().err
    )
    assert len(json.loads((tmp_path / "manifest.json").read_text())["nltk"]["sha256"]) == 64


@pytest.mark.parametrize("recipe", ["textfooler", "textbugger", "bertattack", "bae", "pwws", "deepwordbug"])
def test_every_recipe_runs_on_the_counter_fitted_neighbours(shared, victim, tmp_path, capsys, recipe):
    path = shared / "data/counterfitted_neighbors.json.gz"
    rows = attack(
        victim, tmp_path, capsys, {"recipe": recipe, "candidates": "neighbours", "query_budget": 300}, neighbours=path
    )
    assert len(rows) == DATA["test_examples"] and all(r["queries"] <= 301 for r in rows)
    if recipe in ("textfooler", "bertattack", "bae", "pwws"):
        table = json.loads(gzip.decompress(path.read_bytes()))
        assert all(new.lower() in table[old.lower()] for old, new in changes(rows))


def test_vectors_bound_the_similarity_of_words(victim, tmp_path, capsys):
    """The layout of the published counter-fitted vectors: neighbours below the cosine bound are never taken."""
    words = sorted({w for word, near in grammar.lexicon().items() for w in (word, *near)})
    index = {w: i for i, w in enumerate(words)}
    vectors = np.random.default_rng(0).normal(size=(len(words), 6)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    folder = tmp_path / "paragramcf"
    folder.mkdir()
    np.save(folder / "paragram.npy", vectors)
    np.save(folder / "nn.npy", np.argsort(-cosine, axis=1, kind="stable")[:, :20])
    (folder / "wordlist.pickle").write_bytes(pickle.dumps(index))
    config = {"recipe": "textfooler", "candidates": "counter_fitted", "max_candidates": 19, "min_word_cosine": 0.6}
    found = changes(attack(victim, tmp_path, capsys, config, counter_fitted=folder))
    assert all(cosine[index[old.lower()], index[new.lower()]] >= 0.6 for old, new in found)


# of a WordNet that holds the embedded lexicon
SYNSETS = [(word, *near) for word, near in sorted(grammar.lexicon().items())]


def write_wordnet(folder):
    """The files of WordNet 3.0 (wndb(5WN)) that NLTK reads, every synset of `SYNSETS` an adjective."""
    folder.mkdir(parents=True)
    data, offsets = "  1 winnow's own\n", {}
    for names in SYNSETS:
        for name in names:
            offsets.setdefault(name, []).append(len(data))
        data += f"{len(data):08d} 00 a {len(names):02x} {' '.join(f'{n} 0' for n in names)} 000 | gloss  \n"
    lines = [f"{n} a {len(o)} 0 {len(o)} 0 {' '.join(f'{x:08d}' for x in o)}  \n" for n, o in sorted(offsets.items())]
    for part in ("adj", "noun", "verb", "adv"):
        (folder / f"data.{part}").write_text(data if part == "adj" else "")
        (folder / f"index.{part}").write_text("".join(lines) if part == "adj" else "")
        (folder / f"{part}.exc").touch()
    (folder / "lexnames").write_text("00\tadj.all\t3\n")
    (folder / "cntlist.rev").touch()
    (folder / "index.sense").touch()


def test_pwws_takes_its_synonyms_from_wordnet(victim, tmp_path, capsys):
    write_wordnet(tmp_path / "nltk/corpora/wordnet")
    rows = attack(victim, tmp_path, capsys, {"recipe": "pwws", "candidates": "wordnet"}, nltk=tmp_path / "nltk")
    assert all(any({old.lower(), new.lower()} <= set(s) for s in SYNSETS) for old, new in changes(rows))


@pytest.mark.parametrize("recipe", ["bertattack", "bae"])
def test_masked_models_propose_words(victim, tmp_path, capsys, recipe):
    """A masked-language-model folder as transformers writes it; candidates are words of its vocabulary."""
    transformers = compat.transformers()
    model, tokenizer = tiny_bert(TINY, 2, vocabulary(TEXTS, [], 4000), 64, 1)
    transformers.BertForMaskedLM(model.config).save_pretrained(tmp_path / "mlm")
    tokenizer.save_pretrained(tmp_path / "mlm")
    config = {"recipe": recipe, "candidates": "masked_lm", "max_candidates": 8, "query_budget": 200}
    found = changes(attack(victim, tmp_path, capsys, config, masked_lm=tmp_path / "mlm"))
    known = set(tokenizer.get_vocab())
    assert all(new.lower() in known or recipe == "bertattack" for _, new in found)
