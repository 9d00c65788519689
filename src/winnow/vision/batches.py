"""Batches of a task: from images on the device, from a packed set or from files, augmented alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from winnow.config.parts import Data
from winnow.errors import WinnowError
from winnow.rng import numpy_generator
from winnow.train.device import on_device
from winnow.vision import geometry
from winnow.vision.augment import eval_batch, moved, resample, to_float, train_batch
from winnow.vision.files import FileFeed, read_image
from winnow.vision.packed import Cut, Packed, PackedFeed
from winnow.vision.sources import Split

__all__ = ["Batch", "Loader", "read_image"]
Batch = tuple[Tensor, Tensor]
RESIDENT_BYTES = 2**30  # a packed set up to here lies on the device whole, like an array


class Loader:
    """Training batches (`epoch`) and evaluation batches (`once`) of one split, floats in [0,1] on the device.

    Arrays live on the device whole and are augmented there in batches; files are decoded by `workers` processes that
    live as long as the loader, and a packed set is read by a thread. `waited` counts the seconds for which a batch was
    waited for. The last, smaller batch of a training epoch is kept unless it holds a single image (batch statistics of
    one value).
    """

    def __init__(
        self, split: Split, data: Data, batch_size: int, device: torch.device, seed: int = 0, workers: int = 0
    ):
        if len(split) == 0:
            raise WinnowError(f"data: the {data.dataset} split is empty")
        self.split, self.data, self.device, self.seed, self.waited = split, data, device, seed, 0.0
        self.batch_size = min(batch_size, len(split))
        self.steps_per_epoch = len(self._cut(np.arange(len(split)), drop_single=True))
        self.labels = torch.from_numpy(split.labels).to(device)
        self._feed: FileFeed | PackedFeed | None = None
        pinned, source = device.type != "cpu", split.images
        if isinstance(source, Packed):
            if len(np.unique(source.sizes, axis=0)) == 1 and 3 * source.sizes.prod(1).sum() <= RESIDENT_BYTES:
                self.images = torch.from_numpy(source.whole()).to(device)
            else:
                self._feed = PackedFeed(source, data, seed, resized=device.type == "cpu", pinned=pinned)
        elif split.in_files:
            self._feed = FileFeed(source, data, seed, workers, pinned)
        else:
            self.images = torch.from_numpy(source).to(device)

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
        coming = self._timed(self._feed.batches(parts, epoch)) if self._feed else None
        for part in parts:
            chosen = on_device(part, self.device)
            if coming is not None:
                x = self._finished(next(coming), part, epoch)
            else:
                pixels = self.images[chosen]
                x = (
                    eval_batch(pixels, self.data)
                    if epoch is None
                    else train_batch(pixels, part, self.data, self.seed, epoch)
                )
            yield x, self.labels[chosen]

    def _timed(self, batches: Iterator[list[Tensor] | Cut]) -> Iterator[Cut]:
        while True:
            begun = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - begun
            if batch is None:
                return
            yield batch if isinstance(batch, Cut) else Cut(self._joined(batch))

    def _joined(self, pieces: list[Tensor]) -> Tensor:
        """A batch of files on the device; its pieces are copied there as they are, and joined there."""
        there = [piece.to(self.device, non_blocking=True) for piece in pieces]
        return there[0] if len(there) == 1 else torch.cat(there)

    def _finished(self, cut: Cut, part: np.ndarray, epoch: int | None) -> Tensor:
        """What is left to do on the device: copy, resize, move and mirror, floats."""
        x = cut.images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        drawn = None if epoch is None else geometry.draws(part, self.seed, epoch)
        if cut.boxes is not None and cut.limits is not None:
            flips = (
                geometry.flips(drawn, self.data) if drawn is not None and self.data.train_crop == "resized" else None
            )
            x = resample(x, cut.boxes, cut.limits, self._size(cut), flips)
            return moved(x, drawn, self.data) if drawn is not None and flips is None else x
        crops_are_done = drawn is None or self.data.train_crop == "resized"
        return to_float(x if crops_are_done or drawn is None else moved(x, drawn, self.data))

    def _size(self, cut: Cut) -> int:
        return self.data.image_size or int(cut.images.shape[2])
