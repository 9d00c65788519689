"""Attack parts: figures, word sources, assets, seeds, and the vocabulary they act on."""

from __future__ import annotations

import gzip
import importlib.util
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from winnow.config.text import TextAttack
from winnow.errors import WinnowError
from winnow.text.assets import check_assets, needed_roles
from winnow.text.attacks.summary import summarise
from winnow.text.attacks.words import read_neighbours


def needs(package):
    """Skip without the package; importing it here would bypass the shims."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def row(status, queries=10, changed=2):
    return {"status": status, "queries": queries, "words": 10, "words_changed": changed}


def test_figures_follow_the_paper():
    found = summarise([row("succeeded", 20)] * 3 + [row("failed", 40)] * 5 + [row("skipped", 1, 0)] * 2)
    assert found["attacked"] == 8 and found["skipped"] == 2
    assert (found["clean_percent"], found["aua_percent"]) == (80.0, 50.0)
    assert found["suc_percent"] == pytest.approx(37.5)
    assert found["mean_queries"] == pytest.approx(32.5)
    assert found["perturbed_percent"] == pytest.approx(20.0)


def test_figures_without_a_denominator_are_none():
    found = summarise([row("skipped")])
    assert found["suc_percent"] is None and found["mean_queries"] is None and found["perturbed_percent"] is None


@pytest.mark.parametrize("content", [b"{}", b"[1]", b"not json", b'{"a": "b"}'])
def test_bad_neighbour_lists_are_named(tmp_path, content):
    (tmp_path / "n.json").write_bytes(content)
    with pytest.raises(WinnowError, match=r"n\.json: not a neighbour list"):
        read_neighbours(tmp_path / "n.json")


def test_neighbour_lists_may_be_packed(tmp_path):
    (tmp_path / "n.json.gz").write_bytes(gzip.compress(json.dumps({"good": ["fine"]}).encode()))
    assert read_neighbours(tmp_path / "n.json.gz") == {"good": ["fine"]}


def test_each_setting_names_its_assets(tmp_path):
    attack = TextAttack(recipe="textfooler", candidates="counter_fitted", encoder="use", same_part_of_speech=True)
    assert needed_roles(attack) == ["counter_fitted", "use", "nltk"]
    (tmp_path / "paragram.npy").touch()
    with pytest.raises(
        WinnowError, match=r"wordlist.pickle: missing, textfooler needs it; give it with --counter-fitted"
    ):
        check_assets(attack, {"counter_fitted": tmp_path})
    tags = TextAttack(recipe="bae", candidates="embedded", same_part_of_speech=True)
    with pytest.raises(WinnowError, match=r"averaged_perceptron_tagger_eng.*missing"):
        check_assets(tags, {"nltk": tmp_path})


def test_pickled_code_in_the_embedding_is_refused(tmp_path):
    needs("textattack")
    from winnow.text import compat
    from winnow.text.attacks.words import read_counter_fitted

    compat.textattack()

    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    np.save(tmp_path / "paragram.npy", np.zeros((2, 3), dtype=np.float32))
    np.save(tmp_path / "nn.npy", np.array([[0, 1], [1, 0]]))
    (tmp_path / "wordlist.pickle").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(WinnowError, match=r"refers to builtins.print"):
        read_counter_fitted(tmp_path)
    (tmp_path / "wordlist.pickle").write_bytes(pickle.dumps({"good": 0, "fine": 1}))
    assert read_counter_fitted(tmp_path).nearest_neighbours(0, 1).tolist() == [1]


def test_archive_members_stay_in_their_folder(tmp_path):
    import io
    import zipfile

    from winnow.text.fetch import _unzip

    for name, message in (("../evil", "would leave"), ("/etc/evil", "would leave")):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(name, "x")
        with pytest.raises(WinnowError, match=message):
            _unzip(buffer.getvalue(), tmp_path / "target", strip="top")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("top/inner/file.txt", "x")
    _unzip(buffer.getvalue(), tmp_path / "target", strip="top")
    assert (tmp_path / "target/inner/file.txt").read_text() == "x"


def test_fetching_offline_names_what_is_missing(tmp_path):
    from winnow.text.fetch import Wanted, obtain

    wanted = Wanted(tmp_path, ["stopwords"], {})
    with pytest.raises(WinnowError, match=r"stopwords.zip: missing; run this command with --download"):
        obtain("nltk", wanted, None, download=False)
    (tmp_path / "nltk/corpora/stopwords").mkdir(parents=True)
    (tmp_path / "nltk/corpora/stopwords/english").write_text("the\n")
    known = obtain("nltk", wanted, None, download=False)
    (tmp_path / "nltk/corpora/stopwords/english").write_text("a\n")
    with pytest.raises(WinnowError, match="changed since it was fetched"):
        obtain("nltk", wanted, known, download=False)


def test_what_is_fetched_is_of_the_revision_that_is_named(tmp_path, monkeypatch):
    import huggingface_hub

    from winnow.config.vision import WeightsSource
    from winnow.text.fetch import _from_hub
    from winnow.vision.fetch import fetch_weights

    asked = []

    def one(repo, name, *, revision, local_dir):
        asked.append((repo, revision))
        return str(Path(local_dir) / name)

    def whole(repo, *, revision, **_):
        asked.append((repo, revision))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", one)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", whole)
    for revision in ("abc123", None):
        at = f"@{revision}" if revision else ""
        fetch_weights(WeightsSource(hub=f"owner/name{at}:w.safetensors"), tmp_path, download=True)
        _from_hub(f"owner/name{at}", tmp_path / "encoder")
    assert asked == [("owner/name", "abc123")] * 2 + [("owner/name", None)] * 2


def test_vocabulary_is_deterministic_and_spells_any_word():
    from winnow.text.models import vocabulary

    texts = ["the film was good", "The film was bad!"]
    vocab = vocabulary(texts, ["superb"], 4000)
    assert vocab == vocabulary(list(texts), ["superb"], 4000)
    assert len(set(vocab)) == len(vocab) and {"superb", "film", "##z", "!"} <= set(vocab)
