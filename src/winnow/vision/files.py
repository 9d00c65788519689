"""Batches from image files: worker processes decode, cut and resize; what they hand over is 8-bit.

One DataLoader serves a split for as long as it is used, epochs and validations alike, so its workers start once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from winnow.config.parts import Data
from winnow.errors import WinnowError
from winnow.vision import geometry, images
from winnow.vision.augment import Pixels, pixels_of

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

# A JPEG may be decoded at 1/2, 1/4 or 1/8 (its own transform does the averaging) while so many pixels are left for one
# of the result
GAP = 2.0
PIECE = (
    256  # images that a worker hands over at once, whatever the batch: they fix its memory, and several make a batch
)
Part = tuple[int | None, np.ndarray]  # epoch (None: as at test time) and image numbers of a batch


@dataclass(frozen=True)
class _Refused:
    """An error of a worker, on its way to the process that reports it."""

    message: str


class _Files(torch.utils.data.Dataset[Tensor | _Refused]):
    """Item (epoch, numbers): these images of `paths` (bytes) as uint8 (B,S,S,3), cut and resized."""

    def __init__(self, paths: np.ndarray, data: Data, seed: int):
        self.paths, self.data, self.seed = paths, data, seed

    def __getitem__(self, part: Part) -> Tensor | _Refused:
        epoch, numbers = part
        try:
            if epoch is None or self.data.train_crop != "resized":
                pictures = [self._seen(number) for number in numbers.tolist()]
            else:
                drawn = geometry.draws(numbers, self.seed, epoch)
                flips = geometry.flips(drawn, self.data).tolist()
                pictures = [self._cropped(n, drawn[[k]], flips[k]) for k, n in enumerate(numbers.tolist())]
        except WinnowError as error:
            return _Refused(str(error))
        return torch.stack(pictures) if _alike(pictures) else self.several_sizes(numbers)

    def several_sizes(self, numbers: np.ndarray) -> _Refused:
        """What is said of a batch that cannot be one."""
        name = os.fsdecode(self.paths[numbers[0]])
        return _Refused(
            f"{name}: images of several sizes in its batch; set data.image_size, the side that the model shall see"
        )

    def _cropped(self, number: int, drawn: geometry.Floats, mirror: bool) -> Tensor:
        """A random crop of image `number`, (S,S,3)."""
        path = self.paths[number]
        where = os.fsdecode(path)
        with images.opened(path, where) as image:
            box = geometry.random_boxes(image.height, image.width, drawn)[0].tolist()
            size = self.data.image_size or image.width
            top, left, height, width = _reduced(image, box, size)
            pixels: Pixels = np.array(images.as_rgb(image, where).crop((left, top, left + width, top + height)))
        return pixels_of(pixels, (size, size), mirror)

    def _seen(self, number: int) -> Tensor:
        """Image `number` as at test time, (S,S,3)."""
        path = self.paths[number]
        where = os.fsdecode(path)
        with images.opened(path, where) as image:
            view = geometry.test_view(image.height, image.width, self.data)
            if view is not None:
                _reduced(image, [0, 0, image.height, image.width], max(view.height, view.width))
            pixels: Pixels = np.array(images.as_rgb(image, where))
        if view is None:
            return torch.from_numpy(pixels)
        resized = pixels_of(pixels, (view.height, view.width))
        return resized[view.top : view.top + view.size, view.left : view.left + view.size]


def _alike(pictures: list[Tensor]) -> bool:
    """Whether all are of one height and width."""
    return len({p.shape[-3:] for p in pictures}) == 1


def _reduced(image: ImageFile, box: list[int], size: int) -> list[int]:
    """Let a JPEG be decoded at a fraction of its size where `size` pixels of `box` allow it; the box in its new
    pixels.
    """
    height, width = image.height, image.width
    part = next((p for p in (8, 4, 2) if min(box[2:]) >= GAP * p * size), None)
    if part is None or image.format != "JPEG":
        return box
    image.draft(None, (width // part, height // part))
    down, across = image.height / height, image.width / width
    top, left, tall, wide = (
        round(value * scale) for value, scale in zip(box, (down, across, down, across), strict=True)
    )
    return [top, left, max(1, tall), max(1, wide)]


class _Turn:
    """The batches of one pass, as the sampler that a DataLoader asks anew at each."""

    def __init__(self) -> None:
        self.parts: list[Part] = []

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


def _ignore_ctrl_c(worker: int) -> None:
    """A Ctrl-C reaches all processes of a terminal; the one that trains saves its state, and its loaders work on till
    it ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class FileFeed:
    """uint8 batches of image files in pieces (at most PIECE,S,S,3), page-locked when `pinned`; one pass at a time."""

    def __init__(self, paths: np.ndarray, data: Data, seed: int, workers: int, pinned: bool):
        self._turn, self._passes, self._files = _Turn(), 0, _Files(paths, data, seed)
        self._loader = torch.utils.data.DataLoader(
            self._files,
            sampler=self._turn,  # type: ignore[arg-type]
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pinned,
            worker_init_fn=_ignore_ctrl_c if workers else None,
            generator=torch.Generator(),  # the DataLoader draws a seed at each pass: not from the run's generator
        )

    def batches(self, parts: list[np.ndarray], epoch: int | None) -> Iterator[list[Tensor]]:
        """The images of each part; WinnowError of the first that cannot be read."""
        cuts = [[part[i : i + PIECE] for i in range(0, len(part), PIECE)] for part in parts]
        self._turn.parts = [(epoch, piece) for pieces in cuts for piece in pieces]
        self._passes += 1
        current, arriving = self._passes, iter(self._loader)
        for part, pieces in zip(parts, cuts, strict=True):
            assert current == self._passes, "a pass over files was begun before the last one ended"
            batch = [self._sound(next(arriving)) for _ in pieces]
            if not _alike(batch):
                raise WinnowError(self._files.several_sizes(part).message)
            yield batch

    @staticmethod
    def _sound(piece: Tensor | _Refused) -> Tensor:
        if isinstance(piece, _Refused):
            raise WinnowError(piece.message)
        return piece


def read_image(path: Path | bytes) -> Tensor:
    """An image file as uint8 (3,H,W); WinnowError when it cannot be decoded."""
    return torch.from_numpy(images.read(path, os.fsdecode(path)).transpose(2, 0, 1).copy())
