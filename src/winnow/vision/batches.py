"""Batches of a task: from uint8 images on the device, or from files through worker processes, augmented alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from winnow.config.parts import Data
from winnow.errors import WinnowError
from winnow.rng import numpy_generator
from winnow.vision import images
from winnow.vision.augment import eval_batch, train_batch
from winnow.vision.sources import Split

Batch = tuple[Tensor, Tensor]


class _FromFiles(torch.utils.data.Dataset[Batch]):
    """Decodes image i of a list of files and augments it as the batched path would."""

    def __init__(self, split: Split, data: Data, seed: int, epoch: int | None):
        self.split, self.data, self.seed, self.epoch = split, data, seed, epoch

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> Batch:
        image = read_image(self.split.images[i])[None]
        if self.epoch is None:
            x = eval_batch(image, self.data)
        else:
            x = train_batch(image, np.array([i]), self.data, self.seed, self.epoch)
        return x[0], torch.tensor(int(self.split.labels[i]))


def read_image(path: Path | bytes) -> Tensor:
    """An image file as uint8 (3,H,W); WinnowError when it cannot be decoded."""
    return torch.from_numpy(images.read(path, os.fsdecode(path)).transpose(2, 0, 1).copy())


class Loader:
    """Training batches (`epoch`) and evaluation batches (`once`) of one split, floats in [0,1] on the device.

    Arrays live on the device whole and are augmented there in batches; files go through a DataLoader with `workers`.
    The last, smaller batch of a training epoch is kept unless it holds a single image (batch statistics of one value).
    """

    def __init__(self, split: Split, data: Data, batch_size: int, device: torch.device, seed: int = 0, workers: int = 0):
        if len(split) == 0:
            raise WinnowError(f"data: the {data.dataset} split is empty")
        self.split, self.data, self.device, self.seed, self.workers = split, data, device, seed, workers
        self.batch_size = min(batch_size, len(split))
        self.steps_per_epoch = len(self._cut(np.arange(len(split)), drop_single=True))
        self.images = None if split.in_files else torch.from_numpy(split.images).to(device)
        self.labels = torch.from_numpy(split.labels).to(device)

    def _cut(self, order: np.ndarray, drop_single: bool) -> list[np.ndarray]:
        parts = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        return parts[:-1] if drop_single and len(parts) > 1 and len(parts[-1]) == 1 else parts

    def sizes(self, epoch: int) -> list[int]:
        """Images in each batch of a training epoch."""
        return [len(part) for part in self._cut(np.arange(len(self.split)), drop_single=True)]

    def epoch(self, epoch: int, first: int = 0, share: Callable[[int], slice] = slice) -> Iterator[Batch]:
        """Batches first, first+1, ... of training epoch `epoch`, shuffled and augmented by (seed, epoch).

        Of each batch of n images those in `share(n)`, by default all.
        """
        order = numpy_generator(self.seed, "order", epoch).permutation(len(self.split))
        parts = self._cut(order, drop_single=True)[first:]
        return self._iterate([part[share(len(part))] for part in parts], epoch)

    def once(self, turns: slice = slice(None)) -> Iterator[Batch]:
        """The whole split in order, as at test time; of its batches those in `turns`."""
        return self._iterate(self._cut(np.arange(len(self.split)), drop_single=False)[turns], None)

    def _iterate(self, parts: list[np.ndarray], epoch: int | None) -> Iterator[Batch]:
        if self.images is None:
            files = _FromFiles(self.split, self.data, self.seed, epoch)
            loader = torch.utils.data.DataLoader(
                files,
                batch_sampler=[p.tolist() for p in parts],  # type: ignore[arg-type]
                num_workers=self.workers,
                pin_memory=self.device.type == "cuda",
            )
            for x, y in loader:
                yield x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)
            return
        for part in parts:
            chosen = torch.from_numpy(part).to(self.device)
            pixels = self.images[chosen]
            x = eval_batch(pixels, self.data) if epoch is None else train_batch(pixels, part, self.data, self.seed, epoch)
            yield x, self.labels[chosen]
