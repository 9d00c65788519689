"""Packed image sets of any size: 8-bit pixels in one memory-mapped file a split, read in batches by a thread.

A set is a folder: `pack.json` (class names, checksums), and for each split `<split>.npy`, the uint8 pixels (height,
width, 3) of its images one after the other, and `<split>_index.npy`, int64 (N,4): offset of the first byte, height,
width, class number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from winnow.config.parts import Data
from winnow.errors import WinnowError
from winnow.vision import geometry
from winnow.vision.augment import Pixels, pixels_of

RECORD, FORMAT = "pack.json", 1
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Packed:
    """Some images of a packed split: its pixels (all of them, on disk) and where each image lies, int64 (N,3)."""

    pixels: Pixels
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, indices: np.ndarray) -> Packed:
        return Packed(self.pixels, self.places[indices])

    @property
    def sizes(self) -> np.ndarray:
        """Height and width of each image, int64 (N,2)."""
        return self.places[:, 1:]

    def picture(self, number: int) -> Pixels:
        """Image `number` (H,W,3), not read before it is used."""
        offset, height, width = self.places[number].tolist()
        return self.pixels[offset : offset + 3 * height * width].reshape(height, width, 3)

    def whole(self) -> Pixels:
        """All images, which must have one size, in memory: uint8 (N,3,H,W)."""
        return np.stack([self.picture(n).transpose(2, 0, 1) for n in range(len(self))])


def open_split(folder: Path, split: str) -> tuple[Packed, np.ndarray]:
    """The images of a split and their class numbers int64 (N,); WinnowError when the folder is no complete packed
    set.
    """
    mend = "pack it again (python -m winnow.stages.pack_images)"
    try:
        record = json.loads((folder / RECORD).read_text())
        if record["format"] != FORMAT:
            raise WinnowError(
                f"{folder}: a packed set of format {record['format']}, this winnow reads {FORMAT}; {mend}"
            )
        pixels = np.load(folder / f"{split}.npy", mmap_mode="r", allow_pickle=False)
        index = np.load(folder / f"{split}_index.npy", allow_pickle=False)
        expected = record["splits"][split]
        whole = pixels.shape == (expected["bytes"],) and pixels.dtype == np.uint8 and index.dtype == np.int64
        ends = index[:, 0] + 3 * index[:, 1] * index[:, 2]
        sound = (
            whole
            and index.shape == (expected["images"], 4)
            and len(index)
            and (index >= 0).all()
            and (ends <= len(pixels)).all()
        )
    except FileNotFoundError as error:
        raise WinnowError(f"{folder}: no packed set, {error.filename} is missing; {mend}") from None
    except (ValueError, TypeError, KeyError, IndexError, OSError, EOFError) as error:
        raise WinnowError(f"{folder}: not a complete packed set ({error}); {mend}") from None
    if not sound:
        raise WinnowError(f"{folder}: {split}.npy and {split}_index.npy are not what {RECORD} says of them; {mend}")
    return Packed(pixels, index[:, :3]), index[:, 3]


@dataclass(frozen=True)
class Cut:
    """A batch on its way to the device: uint8 (B,H,W,3), of whose images `boxes` (B or 1, 4) are still to be resized,
    or None.

    Random crops that are resized already are mirrored too.
    """

    images: Tensor
    boxes: np.ndarray | None = None
    limits: np.ndarray | None = None


class PackedFeed:
    """Batches of a packed split, made by a thread one ahead of their use; resized there, or left to a GPU
    (`resized=False`).
    """

    def __init__(self, source: Packed, data: Data, seed: int, resized: bool, pinned: bool):
        self.source, self.data, self.seed, self.resized, self.pinned = source, data, seed, resized, pinned

    def batches(self, parts: list[np.ndarray], epoch: int | None) -> Iterator[Cut]:
        """The images of each part, cut and, if they are here, resized as training epoch `epoch` (None: the test) wants
        them.
        """
        for cut in one_ahead(lambda part: self._cut(part, epoch), parts):
            yield Cut(cut.images.pin_memory(), cut.boxes, cut.limits) if self.pinned else cut

    def _cut(self, part: np.ndarray, epoch: int | None) -> Cut:
        order = np.argsort(self.source.places[part, 0], kind="stable").tolist()
        pictures = [self.source.picture(n) for n in part.tolist()]
        if epoch is not None and self.data.train_crop == "resized":
            heights, widths = self.source.sizes[part].T
            drawn = geometry.draws(part, self.seed, epoch)
            boxes = geometry.random_boxes(heights, widths, drawn)
            size = self.data.image_size or int(widths[0])
            crops = [p[t : t + h, w0 : w0 + w] for p, (t, w0, h, w) in zip(pictures, boxes.tolist(), strict=True)]
            if self.resized:
                flips = geometry.flips(drawn, self.data).tolist()
                batch = torch.empty((len(part), size, size, 3), dtype=torch.uint8)
                for i in order:
                    batch[i] = pixels_of(crops[i], (size, size), flips[i])
                return Cut(batch)
            inside = np.column_stack([np.zeros((len(boxes), 2), np.int64), boxes[:, 2:]])
            return Cut(_side_by_side(crops, order), inside, inside)
        views = [geometry.test_view(h, w, self.data) for h, w in self.source.sizes[part].tolist()]
        if all(view is None for view in views):
            return Cut(_side_by_side(pictures, order))
        return self._seen(pictures, views, order)

    def _seen(self, pictures: list[Pixels], views: Sequence[geometry.TestView | None], order: list[int]) -> Cut:
        if self.resized:
            size = self.data.image_size or pictures[0].shape[1]
            batch = torch.empty((len(pictures), size, size, 3), dtype=torch.uint8)
            for i in order:
                view = views[i] or geometry.TestView(size, size, 0, 0, size)
                whole = pixels_of(pictures[i], (view.height, view.width))
                batch[i] = whole[view.top : view.top + size, view.left : view.left + size]
            return Cut(batch)
        sizes = [p.shape[:2] for p in pictures]
        boxes = [v.box(h, w) if v else np.array([0, 0, h, w]) for v, (h, w) in zip(views, sizes, strict=True)]
        limits = [(0, 0, h, w) for h, w in sizes]
        if len(set(sizes)) == 1:  # one filter for the whole batch
            boxes, limits = boxes[:1], limits[:1]
        return Cut(_side_by_side(pictures, order), np.array(boxes, np.float64), np.array(limits, np.float64))


def _side_by_side(pictures: Sequence[Pixels], order: Sequence[int]) -> Tensor:
    """Pictures (h,w,3) in the upper left corners of one uint8 batch (B,H,W,3)."""
    height, width = (max(p.shape[axis] for p in pictures) for axis in (0, 1))
    batch = np.empty((len(pictures), height, width, 3), np.uint8)
    for i in order:
        batch[i, : pictures[i].shape[0], : pictures[i].shape[1]] = pictures[i]
    return torch.from_numpy(batch)


def one_ahead(make: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """make(item) of each item, by a thread that works on the next one while a result is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make, items[0]) if items else None
        for following in range(1, len(items) + 1):
            assert coming is not None
            done = coming.result()
            coming = pool.submit(make, items[following]) if following < len(items) else None
            yield done
