"""Parts of attacks that TextAttack lacks, or has in a slow or unreproducible form. Import after
`compat.textattack()`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from textattack.constraints.semantics.sentence_encoders import SentenceEncoder
from textattack.models.wrappers import ModelWrapper
from textattack.transformations import WordSwap
from torch import Tensor, nn

from winnow.config.parts import Compute
from winnow.errors import WinnowError
from winnow.text.models import token_types
from winnow.train.device import autocast

LOOKALIKES = dict(zip("aceijopsvxyhdgkmnrtu0135", "асеіјорѕνхуһԁɡκｍոгτυOlЗƼ", strict=True))


class Victim(ModelWrapper):
    """The attacked classifier: tokenised as in training (same truncation, token types), padded to the longest of the
    call.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, max_length: int, compute: Compute, device: torch.device):
        self.model, self.tokenizer, self.max_length = model.to(device).eval(), tokenizer, max_length
        self.compute, self.device, self.types = compute, device, token_types(model)

    @torch.inference_mode()
    def __call__(self, text_input_list: Sequence[Any]) -> Tensor:
        """Logits (n, classes), float32 on the CPU, of texts or of (text, text) tuples."""
        if isinstance(text_input_list[0], str):
            texts, pairs = list(text_input_list), None
        else:
            texts, pairs = [t[0] for t in text_input_list], [t[1] for t in text_input_list]
        encoded = self.tokenizer(
            texts,
            pairs,
            truncation=True,
            max_length=self.max_length,
            padding=True,
            return_tensors="pt",
            return_token_type_ids=self.types,
        )
        with autocast(self.compute, self.device):
            return self.model(**encoded.to(self.device)).logits.float().cpu()


class ListSwap(WordSwap):
    """Replaces a word by its neighbours in a list, nearest first; the case of the word is kept."""

    def __init__(self, neighbours: Mapping[str, list[str]], max_candidates: int):
        super().__init__()
        self.neighbours, self.max_candidates = neighbours, max_candidates

    def _get_replacement_words(self, word: str) -> list[str]:
        found = self.neighbours.get(word) or self.neighbours.get(word.lower()) or []
        return [_like(n, word) for n in found[: self.max_candidates]]


class WordNetSwap(WordSwap):
    """WordNet synonyms in alphabetical order: TextAttack's own gives them in hash order, and tries to download."""

    def __init__(self) -> None:
        super().__init__()
        from nltk.corpus import wordnet

        self.wordnet = wordnet

    def _get_replacement_words(self, word: str) -> list[str]:
        lemmas = {lemma for synset in self.wordnet.synsets(word) for lemma in synset.lemma_names()}
        return sorted(lemma for lemma in lemmas if lemma.isalpha() and lemma != word)


class LookalikeSwap(WordSwap):
    """Replaces one character by a Unicode lookalike, one candidate a position (TextAttack's own lacks its data
    file).
    """

    def _get_replacement_words(self, word: str) -> list[str]:
        return [word[:i] + LOOKALIKES[c] + word[i + 1 :] for i, c in enumerate(word) if c in LOOKALIKES]


def _like(word: str, pattern: str) -> str:
    if pattern.isupper() and len(pattern) > 1:
        return word.upper()
    return word.capitalize() if pattern[:1].isupper() else word.lower()


def textfooler_stopwords() -> frozenset[str]:
    """The words that TextAttack's TextFooler recipe never changes, out of its own source: it offers them nowhere else.

    Raises WinnowError when the installed version holds no such list.
    """
    import ast
    from pathlib import Path

    import textattack

    recipe = Path(textattack.__path__[0]) / "attack_recipes/textfooler_jin_2019.py"
    for node in ast.walk(ast.parse(recipe.read_text(encoding="utf-8") if recipe.is_file() else "")):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "stopwords":
            words = node.value.args[0] if isinstance(node.value, ast.Call) else node.value
            return frozenset(ast.literal_eval(words))
    raise WinnowError(
        "attack.stopwords: TextAttack's TextFooler recipe has no list in this version; use builtin or nltk"
    )


class LocalEncoder(SentenceEncoder):
    """Sentence similarity from a Hugging Face encoder: mean of the last layer over the tokens (sentence-transformers'
    pooling).

    Each distinct window of an example is encoded once, the new ones of a call in batches; texts shorter than the window
    pass without being encoded, where the setting says so.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, batch_size: int, device: torch.device, **settings: Any):
        settings.setdefault("skip_text_shorter_than_window", settings.get("window_size") is not None)
        super().__init__(**settings)
        self.encoder, self.tokenizer, self.batch_size, self.device = (
            model.to(device).eval(),
            tokenizer,
            batch_size,
            device,
        )
        self.known: dict[str, Tensor] = {}

    def clear_cache(self) -> None:
        """Called by TextAttack after each example."""
        self.known.clear()

    @torch.inference_mode()
    def encode(self, sentences: Sequence[str]) -> Tensor:
        """Embeddings (n, dim) on the CPU."""
        new = [s for s in dict.fromkeys(sentences) if s not in self.known]
        for start in range(0, len(new), self.batch_size):
            texts = new[start : start + self.batch_size]
            batch = self.tokenizer(texts, truncation=True, max_length=256, padding=True, return_tensors="pt").to(
                self.device
            )
            hidden = self.encoder(**batch).last_hidden_state
            mask = batch["attention_mask"][:, :, None].to(hidden.dtype)
            means = ((hidden * mask).sum(1) / mask.sum(1)).float().cpu()
            self.known.update(zip(texts, means, strict=True))
        return torch.stack([self.known[s] for s in sentences])

    def _check_constraint_many(self, transformed_texts: Any, reference_text: Any) -> Any:
        if self.skip_text_shorter_than_window and all(len(t.words) < self.window_size for t in transformed_texts):
            for text in transformed_texts:
                text.attack_attrs["similarity_score"] = 1.0
            return np.array(transformed_texts)
        return super()._check_constraint_many(transformed_texts, reference_text)
