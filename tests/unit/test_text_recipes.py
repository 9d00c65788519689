"""The six recipes: which words, edits, bounds and order of search each is made of, on stand-ins that keep what they
are given.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if importlib.util.find_spec("textattack") is None:  # importing it here would bypass the shims
    pytest.skip("textattack is not installed", allow_module_level=True)

from winnow.config.text import TextAttack  # noqa: E402
from winnow.text import compat, grammar  # noqa: E402
from winnow.text.attacks import recipes, words  # noqa: E402

compat.textattack()
from winnow.text.attacks import parts  # noqa: E402

CPU, VICTIM = torch.device("cpu"), SimpleNamespace(max_length=37)
MODULES = {
    "textattack.attack": ["Attack"],
    "textattack.goal_functions": ["UntargetedClassification"],
    "textattack.search_methods": ["GreedyWordSwapWIR"],
    "textattack.constraints.pre_transformation": ["InputColumnModification", "RepeatModification", "StopwordModification"],
    "textattack.constraints.grammaticality": ["PartOfSpeech"],
    "textattack.constraints.overlap": ["LevenshteinEditDistance", "MaxWordsPerturbed"],
    "textattack.constraints.semantics": ["WordEmbeddingDistance"],
    "textattack.transformations": [
        "CompositeTransformation", "WordSwapNeighboringCharacterSwap", "WordSwapRandomCharacterDeletion",
        "WordSwapRandomCharacterInsertion", "WordSwapRandomCharacterSubstitution", "WordSwapEmbedding",
        "WordSwapMaskedLM",
    ],
    "winnow.text.attacks.parts": ["ListSwap", "WordNetSwap", "LookalikeSwap", "LocalEncoder"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    """Every part stands for its name and what it was made of."""
    for module, names in MODULES.items():
        for name in names:
            monkeypatch.setattr(f"{module}.{name}", lambda *a, name=name, **k: (name, *a, *([k] if k else [])))
    monkeypatch.setattr(recipes, "check_assets", lambda config, assets: dict(assets))
    monkeypatch.setattr(compat, "local_model", lambda kind, folder: (f"{kind} of {folder}", f"tokenizer of {folder}"))
    monkeypatch.setattr(words, "read_counter_fitted", lambda folder: f"vectors of {folder}")
    monkeypatch.setattr(words, "read_neighbours", lambda file: f"neighbours of {file}")
    monkeypatch.setattr(parts, "textfooler_stopwords", lambda: "textfooler's")


def built(recipe="textfooler", candidates="embedded", **keys):
    """(goal, bounds, edits, order of search)"""
    assets = {"neighbours": Path("n"), "counter_fitted": Path("c"), "masked_lm": Path("m"), "encoder": Path("e")}
    pair = {k: keys.pop(k) for k in ("columns", "fixed") if k in keys}
    name, *found = recipes.build(TextAttack(recipe=recipe, candidates=candidates, **keys), VICTIM, assets, CPU, **pair)
    assert name == "Attack"
    return found


def test_the_goal_is_any_other_class_within_the_budget():
    goal = ("UntargetedClassification", VICTIM, {"query_budget": float("inf"), "model_batch_size": 64})
    assert built()[0] == goal
    assert built(query_budget=7, batch_size=3)[0][2] == {"query_budget": 7, "model_batch_size": 3}


@pytest.mark.parametrize(
    ("recipe", "candidates", "order"),
    [("textfooler", "embedded", "delete"), ("textbugger", "embedded", "delete"), ("bae", "masked_lm", "delete"),
     ("pwws", "wordnet", "weighted-saliency"), ("deepwordbug", "none", "unk"), ("bertattack", "masked_lm", "unk"),
     ("bertattack", "neighbours", "delete")],
)  # fmt: skip
def test_words_are_tried_in_the_recipe_s_order(recipe, candidates, order):
    assert built(recipe, candidates)[3] == ("GreedyWordSwapWIR", order)


@pytest.mark.parametrize(
    ("candidates", "swap"),
    [("neighbours", ("ListSwap", "neighbours of n", 9)), ("wordnet", ("WordNetSwap",)),
     ("counter_fitted", ("WordSwapEmbedding", 9, "vectors of c")),
     ("embedded", ("ListSwap", grammar.lexicon(), 9))],
)  # fmt: skip
def test_words_come_from_where_they_are_asked_for(candidates, swap):
    assert built(candidates=candidates, max_candidates=9)[2] == swap


@pytest.mark.parametrize(("recipe", "method"), [("bertattack", "bert-attack"), ("bae", "bae"), ("textfooler", "bae")])
def test_words_of_a_language_model_come_in_the_recipe_s_way(recipe, method):
    keys = {"max_length": 37, "max_candidates": 9, "min_confidence": 0.0}
    swap = ("WordSwapMaskedLM", method, "AutoModelForMaskedLM of m", "tokenizer of m", keys)
    assert built(recipe, "masked_lm", max_candidates=9)[2] == swap


@pytest.mark.parametrize("candidates", ["none", "embedded"])
def test_bugs_are_the_recipes_own(candidates):
    also = [("ListSwap", grammar.lexicon(), 50)] if candidates == "embedded" else []
    inner = {"random_one": True, "skip_first_char": True, "skip_last_char": True}
    assert built("textbugger", candidates)[2] == ("CompositeTransformation", [
        ("WordSwapRandomCharacterInsertion", {"letters_to_insert": " ", **inner}),
        ("WordSwapRandomCharacterDeletion", inner), ("WordSwapNeighboringCharacterSwap", inner), ("LookalikeSwap",), *also,
    ])  # fmt: skip
    edits = [
        "NeighboringCharacterSwap",
        "RandomCharacterSubstitution",
        "RandomCharacterDeletion",
        "RandomCharacterInsertion",
    ]
    assert built("deepwordbug", candidates)[2] == (
        "CompositeTransformation",
        [*((f"WordSwap{e}",) for e in edits), *also],
    )


def test_bounds_are_those_that_are_set_and_no_others():
    always = [("RepeatModification",), ("StopwordModification", {"stopwords": words.STOPWORDS})]
    assert built()[1] == always
    assert built(stopwords="nltk")[1] == [always[0], ("StopwordModification", {"stopwords": None})]
    assert built(stopwords="recipe")[1] == [always[0], ("StopwordModification", {"stopwords": "textfooler's"})]
    for keys, bound in (
        ({"max_modified_fraction": 0.2}, ("MaxWordsPerturbed", {"max_percent": 0.2})),
        ({"max_edit_distance": 30}, ("LevenshteinEditDistance", 30)),
        ({"same_part_of_speech": True}, ("PartOfSpeech", {"allow_verb_noun_swap": True})),
    ):
        assert built(**keys)[1] == [*always, bound]
    near = ("WordEmbeddingDistance", {"embedding": "vectors of c", "min_cos_sim": 0.6})
    assert built(candidates="counter_fitted", min_word_cosine=0.6)[1] == [*always, near]
    one = ("InputColumnModification", ["premise", "hypothesis"], {"premise"})
    assert built(columns=("premise", "hypothesis"), fixed="premise")[1] == [*always, one]


@pytest.mark.parametrize("recipe", ["textfooler", "bae"])
@pytest.mark.parametrize(("window", "short", "skipped"), [(None, True, False), (15, True, True), (15, False, False)])
def test_similarity_is_bounded_as_it_is_set(recipe, window, short, skipped):
    keys = {"encoder": "huggingface", "min_similarity": 0.8, "metric": "angular", "window": window, "batch_size": 5}
    bound = built(recipe, skip_short_texts=short, **keys)[1][-1]
    assert bound == ("LocalEncoder", "AutoModel of e", "tokenizer of e", 5, CPU, {
        "threshold": 0.8, "metric": "angular", "window_size": window, "compare_against_original": recipe != "textfooler",
        "skip_text_shorter_than_window": skipped,
    })  # fmt: skip


def test_textfooler_s_words_are_those_of_its_recipe(monkeypatch):
    monkeypatch.undo()
    import textattack

    text = (Path(textattack.__path__[0]) / "attack_recipes/textfooler_jin_2019.py").read_text(encoding="utf-8")
    listed = re.search(r"stopwords = set\(\s*\[(.*?)\]", text, re.S)[1]
    found = parts.textfooler_stopwords()
    assert found == frozenset(a or b for a, b in re.findall(r'"([^"]+)"|\'([^\']+)\'', listed))
    assert {"a", "the", "yourselves"} <= found and len(found) > 200 and "film" not in found


def test_words_keep_their_case_and_lookalikes_change_one_letter():
    assert [parts._like("film", w) for w in ("Movie", "MOVIE", "movie", "A", "a")] == [
        "Film",
        "FILM",
        "film",
        "Film",
        "film",
    ]
    assert parts.LOOKALIKES["a"] == "а" and parts.LOOKALIKES["5"] == "Ƽ" and len(parts.LOOKALIKES) == 24


def test_sentences_are_encoded_once_each_as_the_mean_of_their_tokens(monkeypatch):
    monkeypatch.undo()  # the encoder itself
    seen = []

    class Encoder(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            seen.append(len(input_ids))
            return SimpleNamespace(last_hidden_state=torch.stack([input_ids.float(), input_ids.float() ** 2], -1))

    class Batch(dict):
        def to(self, device):
            return self

    def tokenizer(texts, **keys):
        assert keys == {"truncation": True, "max_length": 256, "padding": True, "return_tensors": "pt"}
        rows = [[len(w) for w in t.split()] for t in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([r + [99] * (longest - len(r)) for r in rows])
        return Batch(input_ids=ids, attention_mask=(ids != 99).long())

    made = parts.LocalEncoder(Encoder(), tokenizer, 2, CPU, threshold=0.5, metric="cosine")
    found = made.encode(["a bb", "ccc", "a bb", "dddd e f"])
    assert found.tolist() == [[1.5, 2.5], [3.0, 9.0], [1.5, 2.5], [2.0, 6.0]] and seen == [2, 1]
    assert made.encode(["ccc", "gg"]).tolist() == [[3.0, 9.0], [2.0, 4.0]] and seen == [2, 1, 1]
    made.clear_cache()
    assert made.encode(["ccc"]).shape == (1, 2) and seen == [2, 1, 1, 1] and not made.skip_text_shorter_than_window
    windowed = parts.LocalEncoder(Encoder(), tokenizer, 2, CPU, threshold=0.5, metric="cosine", window_size=15)
    assert windowed.skip_text_shorter_than_window
    short = [SimpleNamespace(words=["a"] * 14, attack_attrs={}) for _ in range(2)]
    assert list(windowed._check_constraint_many(np.array(short), short[0])) == short
    assert all(t.attack_attrs == {"similarity_score": 1.0} for t in short)


def test_a_victim_answers_in_the_order_of_its_texts(monkeypatch):
    monkeypatch.undo()  # the parts themselves

    class Model(torch.nn.Module):
        config = SimpleNamespace(type_vocab_size=2, model_type="bert")

        def forward(self, **inputs):
            assert not self.training and not torch.is_grad_enabled()
            return SimpleNamespace(logits=torch.stack([inputs["input_ids"].sum(1)] * 2, 1))

    asked = []

    class Batch(dict):
        def to(self, device):
            return self

    def tokenizer(texts, pairs, **keys):
        asked.append((texts, pairs, keys))
        return Batch(input_ids=torch.tensor([[len(t)] for t in texts]))

    from winnow.config.parts import Compute

    victim = parts.Victim(Model().train(), tokenizer, 37, Compute(), CPU)
    assert victim(["cc"]).tolist() == [[2.0, 2.0]] and asked.pop()[:2] == (["cc"], None)
    assert victim(["a", "bbb"]).tolist() == [[1.0, 1.0], [3.0, 3.0]] and asked[0][:2] == (["a", "bbb"], None)
    assert victim([("a", "x"), ("bb", "y")]).tolist() == [[1.0, 1.0], [2.0, 2.0]] and asked[1][:2] == (
        ["a", "bb"],
        ["x", "y"],
    )
    assert asked[0][2] == {"truncation": True, "max_length": 37, "padding": True, "return_tensors": "pt",
                           "return_token_type_ids": victim.types}  # fmt: skip
    swap = parts.ListSwap({"good": ["fine", "Great", "nice"], "Up": ["down"]}, 2)
    assert [swap._get_replacement_words(w) for w in ("good", "Good", "Up", "none")] == [
        ["fine", "great"],
        ["Fine", "Great"],
        ["Down"],
        [],
    ]
    assert parts.LookalikeSwap()._get_replacement_words("bab") == ["bаb"]
