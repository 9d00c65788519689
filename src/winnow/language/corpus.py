"""Running text as numbers of words, in windows that follow one another.

A line is its words between spaces and a last word `<eos>`; the vocabulary is that of the training text, in the order of
first appearance. A text is cut into columns of equal length that are read side by side, a window of words at a time;
the words that no column has room for are left out, and a network remembers nothing from one window to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from winnow.config.parts import Corpus
from winnow.errors import WinnowError
from winnow.text import grammar
from winnow.train.device import on_device

LINE_END, UNKNOWN = "<eos>", "<unk>"
LAYOUTS = {  # split -> its file: WikiText's own names, and those of the rare-gems code
    "train": ("wiki.train.tokens", "train.txt"),
    "val": ("wiki.valid.tokens", "valid.txt"),
    "test": ("wiki.test.tokens", "test.txt"),
}
SENTENCES = {"train": 6000, "val": 600, "test": 600}  # of the generated corpus
MEASURED_COLUMNS = 10  # in which held-out text is read, as in the rare-gems code: it decides which words have no past


@dataclass(frozen=True)
class Words:
    """Numbers of the words of each split (int64), and the vocabulary."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    vocabulary: list[str]

    @property
    def num_classes(self) -> int:
        """Words that the next one is chosen from."""
        return len(self.vocabulary)

    @property
    def chance(self) -> float:
        """Percentage of the test text that is the training text's most frequent word."""
        return 100.0 * float(np.mean(self.test == np.bincount(self.train).argmax()))


def load(data: Corpus, root: Path) -> Words:
    """Read or generate the text. Raises WinnowError naming the file that is missing, empty or no text."""
    lines = {split: _generated(split) if data.dataset == "sentences" else _read(data, root, split) for split in LAYOUTS}
    words = {split: [w for line in lines[split] for w in (*line.split(), LINE_END)] for split in LAYOUTS}
    known = {w: i for i, w in enumerate(dict.fromkeys(words["train"]))}
    if any(w not in known for split in ("val", "test") for w in words[split]):
        known.setdefault(UNKNOWN, len(known))
    ids = {
        s: np.array([known.get(w, known.get(UNKNOWN, 0)) for w in found], dtype=np.int64) for s, found in words.items()
    }
    if data.train_words is not None:
        ids["train"] = ids["train"][: data.train_words]
    return Words(ids["train"], ids["val"], ids["test"], list(known))


def _generated(split: str) -> list[str]:
    return grammar.sentences(SENTENCES[split], 0, f"corpus {split}", grammar.UNLABELLED_DECAY)[0]


def _read(data: Corpus, root: Path, split: str) -> list[str]:
    folder = root / str(data.path)
    file = next((folder / name for name in LAYOUTS[split] if (folder / name).is_file()), None)
    if file is None:
        raise WinnowError(
            f"{folder}: holds neither {' nor '.join(LAYOUTS[split])}; put the text there, or correct path"
        )
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise WinnowError(f"{file}: not a readable text ({error}); save it as UTF-8") from None
    if not any(line.strip() for line in lines):
        raise WinnowError(f"{file}: holds no word")
    return lines


class Windows:
    """Batches (x, y) of one text: x (columns, window) int64 words, y the word after each, on the device.

    The order is that of the text in every epoch. Raises WinnowError when the text is too short for two words a column.
    """

    waited = 0.0

    def __init__(self, words: np.ndarray, columns: int, window: int, device: torch.device):
        length = len(words) // columns
        if length < 2:
            raise WinnowError(
                f"data: a text of {len(words)} words is too short for {columns} columns; lower batch_size"
            )
        self.words = np.ascontiguousarray(words[: length * columns].reshape(columns, length))
        self.columns, self.window, self.device = columns, window, device
        self.starts = range(0, length - 1, window)
        self.steps_per_epoch = len(self.starts)
        self.batch_size = columns
        self.predicted = columns * (length - 1)

    def sizes(self, epoch: int) -> list[int]:
        """Columns in each batch."""
        return [self.columns] * self.steps_per_epoch

    def epoch(
        self, epoch: int, first: int = 0, share: Callable[[int], slice] = slice
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows first, first+1, ...; of the columns those in `share(columns)`."""
        chosen = self.words[share(self.columns)]
        for start in self.starts[first:]:
            end = min(start + self.window, chosen.shape[1] - 1)
            yield on_device(chosen[:, start:end], self.device), on_device(chosen[:, start + 1 : end + 1], self.device)

    def once(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole text."""
        return self.epoch(0)
