"""Where replacement words come from: the embedded lexicon, a neighbour list, counter-fitted vectors; and what stays."""

from __future__ import annotations

import io
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from winnow import outside
from winnow.errors import WinnowError

_LARGEST = 1 << 30  # bytes of a neighbour list, unpacked
STOPWORDS = frozenset(
    [
        "a",
        "about",
        "above",
        "after",
        "again",
        "against",
        "all",
        "am",
        "an",
        "and",
        "any",
        "are",
        "as",
        "at",
        "be",
        "because",
        "been",
        "before",
        "being",
        "below",
        "between",
        "both",
        "but",
        "by",
        "can",
        "cannot",
        "could",
        "did",
        "do",
        "does",
        "doing",
        "down",
        "during",
        "each",
        "few",
        "for",
        "from",
        "further",
        "had",
        "has",
        "have",
        "having",
        "he",
        "her",
        "here",
        "hers",
        "herself",
        "him",
        "himself",
        "his",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "itself",
        "just",
        "me",
        "more",
        "most",
        "my",
        "myself",
        "no",
        "none",
        "nor",
        "not",
        "now",
        "of",
        "off",
        "on",
        "once",
        "only",
        "or",
        "other",
        "our",
        "ours",
        "ourselves",
        "out",
        "over",
        "own",
        "same",
        "she",
        "should",
        "so",
        "some",
        "such",
        "than",
        "that",
        "the",
        "their",
        "theirs",
        "them",
        "themselves",
        "then",
        "there",
        "these",
        "they",
        "this",
        "those",
        "through",
        "time",
        "to",
        "too",
        "under",
        "until",
        "up",
        "us",
        "very",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "while",
        "who",
        "whom",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
        "yours",
        "yourself",
        "yourselves",
        "isn't",
        "aren't",
        "wasn't",
        "weren't",
        "don't",
        "doesn't",
        "didn't",
        "won't",
        "wouldn't",
        "can't",
        "couldn't",
        "shouldn't",
        "hasn't",
        "haven't",
        "hadn't",
        "isn",
        "aren",
        "wasn",
        "weren",
        "don",
        "doesn",
        "didn",
        "won",
        "wouldn",
        "couldn",
        "shouldn",
        "hasn",
        "haven",
        "hadn",
        "s",
        "t",
        "d",
        "ll",
        "m",
        "re",
        "ve",
        "whole",
        "end",
    ]
)
"""Function words that no attacker changes (setting `stopwords: builtin`); NLTK's list needs its data."""


def read_neighbours(path: Path) -> dict[str, list[str]]:
    """A neighbour list: JSON (also .gz) of word -> words, nearest first. WinnowError when it is anything else."""
    try:
        data = outside.unpacked(path, _LARGEST) if path.name.endswith(".gz") else outside.read_bytes(path, _LARGEST)
        table = outside.parse_json(data)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise WinnowError(
            f'{path}: not a neighbour list ({error}); expected JSON like {{"good": ["fine"]}}, also .gz'
        ) from None
    if not isinstance(table, dict) or not table or not all(isinstance(v, list) for v in table.values()):
        raise WinnowError(f'{path}: not a neighbour list; expected JSON like {{"good": ["fine"]}}')
    return table


class _NumbersAndWords(pickle.Unpickler):
    """Unpickles plain containers only: a file that names any class or function is refused, so nothing in it runs."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")


def read_counter_fitted(folder: Path) -> Any:
    """The counter-fitted embedding (`paragramcf` layout: paragram.npy, wordlist.pickle, nn.npy) as a TextAttack
    embedding.
    """
    from textattack.shared import WordEmbedding

    try:
        vectors = np.load(outside.regular(folder / "paragram.npy"), allow_pickle=False)
        neighbours = np.load(outside.regular(folder / "nn.npy"), allow_pickle=False)
        index = _NumbersAndWords(io.BytesIO(outside.read_bytes(folder / "wordlist.pickle"))).load()
    except (OSError, ValueError, EOFError, MemoryError, pickle.UnpicklingError) as error:
        raise WinnowError(f"{folder}: not the counter-fitted embedding ({error}); fetch it again") from None
    return WordEmbedding(vectors, index, {i: w for w, i in index.items()}, neighbours)
