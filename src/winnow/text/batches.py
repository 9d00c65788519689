"""Tokenised examples and their batches: texts of similar length together, padded to the longest of the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from winnow.rng import numpy_generator
from winnow.text.data import Examples
from winnow.train.device import on_device

POOL_BATCHES = 32  # examples are sorted by length within pools of this many batches; order is otherwise random


@dataclass(frozen=True)
class Encoded:
    """Token ids and token type ids (None where the model takes none) of every example, unpadded, and the labels
    (int64).
    """

    ids: list[np.ndarray]
    types: list[np.ndarray] | None
    labels: np.ndarray
    pad_id: int

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example."""
        return np.array([len(i) for i in self.ids])

    def batch(self, index: np.ndarray, device: torch.device) -> dict[str, Tensor]:
        """input_ids, attention_mask, token_type_ids if any (n, longest of the batch) and labels (n) on `device`."""
        longest = max(len(self.ids[i]) for i in index)
        packed = np.zeros((2 if self.types is None else 3, len(index), longest), dtype=np.int64)
        packed[0] = self.pad_id
        for row, i in enumerate(index):
            n = len(self.ids[i])
            packed[0, row, :n], packed[1, row, :n] = self.ids[i], 1
            if self.types is not None:
                packed[2, row, :n] = self.types[i]
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = dict(zip(names, on_device(packed, device), strict=False))  # two, or three with token types
        return {**inputs, "labels": on_device(self.labels[index], device)}


def encode(tokenizer: Any, examples: Examples, max_length: int, types: bool = True) -> Encoded:
    """Tokenise; texts or pairs longer than `max_length` tokens are cut (pairs: the longer side first).

    `types`: with token type ids, for models that tell a pair's texts apart by them (`models.token_types`).
    """
    made = tokenizer(
        examples.texts, examples.pairs, truncation=True, max_length=max_length, return_token_type_ids=types
    )
    arrays = {
        k: [np.asarray(row, dtype=np.int64) for row in made[k]] for k in ("input_ids", "token_type_ids") if k in made
    }
    return Encoded(arrays["input_ids"], arrays.get("token_type_ids"), examples.labels, tokenizer.pad_token_id or 0)


class TextBatches:
    """Training batches for `train.loop.fit`: order and composition are a function of (seed, epoch)."""

    def __init__(self, data: Encoded, batch_size: int, seed: int, device: torch.device):
        self.data, self.batch_size, self.seed, self.device = data, batch_size, seed, device
        self.steps_per_epoch = -(-len(data.ids) // batch_size)

    def order(self, epoch: int) -> list[np.ndarray]:
        """The epoch's batches as arrays of example numbers; each example once, only the last pool's batch may be
        short.
        """
        rng = numpy_generator(self.seed, "order", epoch)
        shuffled = rng.permutation(len(self.data.ids))
        lengths, pool = self.data.lengths, POOL_BATCHES * self.batch_size
        batches = []
        for start in range(0, len(shuffled), pool):
            members = shuffled[start : start + pool]
            members = members[np.argsort(lengths[members], kind="stable")]
            batches += [members[i : i + self.batch_size] for i in range(0, len(members), self.batch_size)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def sizes(self, epoch: int) -> list[int]:
        """Examples in each batch of the epoch."""
        return [len(index) for index in self.order(epoch)]

    def epoch(self, epoch: int, first: int = 0, share: Callable[[int], slice] = slice) -> Iterator[dict[str, Tensor]]:
        """Batches first, first+1, ... of the epoch; of n examples those in `share(n)`, padded like the whole batch."""
        for index in self.order(epoch)[first:]:
            whole = self.data.batch(index, self.device)
            yield {name: tensor[share(len(index))] for name, tensor in whole.items()}


def by_length(
    data: Encoded, batch_size: int, device: torch.device, turns: slice = slice(None)
) -> Iterator[dict[str, Tensor]]:
    """All examples once, shortest first, for evaluation; of these batches those in `turns`."""
    order = np.argsort(data.lengths, kind="stable")
    for start in range(0, len(order), batch_size)[turns]:
        yield data.batch(order[start : start + batch_size], device)
