"""Where an image is cut, resized and mirrored: numbers alone, which (seed, epoch, image index) and the image's size
decide.

Every loader asks here, wherever it does the work, so an image is augmented alike in a file, in a packed set and in
memory. Boxes are (top, left, height, width) in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winnow.config.parts import Data
from winnow.errors import WinnowError
from winnow.rng import uniform

Floats = npt.NDArray[np.float64]


def draws(indices: np.ndarray, seed: int, epoch: int) -> Floats:
    """The random numbers (B,6) in [0,1) that decide on the images with these numbers (B,): flip, area, ratio, top,
    left, spare.
    """
    return uniform(indices, 6, seed, "augment", epoch)


def flips(drawn: Floats, data: Data) -> npt.NDArray[np.bool_]:
    """Which images are mirrored, (B,)."""
    return (drawn[:, 0] < 0.5) if data.flip else np.zeros(len(drawn), dtype=bool)


def shifts(drawn: Floats, padding: int) -> npt.NDArray[np.int64]:
    """Where an image that was padded by `padding` is cut, (B,2)."""
    return np.floor(drawn[:, 1:3] * (2 * padding + 1)).astype(np.int64)


def random_boxes(height: npt.ArrayLike, width: npt.ArrayLike, drawn: Floats) -> npt.NDArray[np.int64]:
    """RandomResizedCrop's boxes (B,4): area 8-100 %, aspect ratio 3/4-4/3 (log-uniform), clipped to the image; whole
    pixels.
    """
    height, width = np.asarray(height, dtype=np.int64), np.asarray(width, dtype=np.int64)
    area = (0.08 + 0.92 * drawn[:, 1]) * height * width
    ratio = np.exp(np.log(3 / 4) + drawn[:, 2] * (np.log(4 / 3) - np.log(3 / 4)))
    w = np.clip(np.rint(np.sqrt(area * ratio)), 1, width)
    h = np.clip(np.rint(np.sqrt(area / ratio)), 1, height)
    top, left = np.floor(drawn[:, 3] * (height - h + 1)), np.floor(drawn[:, 4] * (width - w + 1))
    return np.stack([top, left, h, w], axis=1).astype(np.int64)


@dataclass(frozen=True)
class TestView:
    """At test time an image is resized to (height, width), of which the square of `size` at (top, left) is seen."""

    height: int
    width: int
    top: int
    left: int
    size: int

    def box(self, height: int, width: int) -> npt.NDArray[np.float64]:
        """The square in pixels of an image of `height` and `width`, (4,)."""
        down, across = height / self.height, width / self.width
        return np.array([self.top * down, self.left * across, self.size * down, self.size * across])


def test_view(height: int, width: int, data: Data) -> TestView | None:
    """torchvision's Resize(test_resize), CenterCrop(image_size), or a plain resize to the square; None: as it is
    stored.

    Raises WinnowError for an image that is not square and no image_size, and for a view larger than what it is cut
    from.
    """
    if data.image_size is None and height != width:
        raise WinnowError("data.image_size: the stored images are not square; set the side that the model shall see")
    size = data.image_size or width
    if data.test_resize is None:
        return None if (height, width) == (size, size) else TestView(size, size, 0, 0, size)
    if data.test_resize < size:
        raise WinnowError(
            f"data.test_resize: {data.test_resize} is below the image size {size} that is cut from it; raise it"
        )
    short, long = min(height, width), max(height, width)
    resized = int(data.test_resize * long / short)
    h, w = (data.test_resize, resized) if height <= width else (resized, data.test_resize)
    return TestView(h, w, round((h - size) / 2), round((w - size) / 2), size)
