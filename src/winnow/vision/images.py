"""Image files as 8-bit RGB pictures: what cannot be shown whole and right is refused in one line that names the file.

As torchvision's loader does, pixels are taken as they are stored: an EXIF rotation is not applied, transparency is
dropped, of several frames the first is read. Unlike it, 16-bit grey is scaled to 8 bits (PIL's own conversion clips it
to white).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from winnow.errors import WinnowError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageFile import ImageFile

# torchvision.datasets.folder.IMG_EXTENSIONS
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
BILINEAR = 2  # PIL.Image.Resampling.BILINEAR, which is antialiased; PIL itself is imported where it is needed
_SIXTEEN_BITS = ("PNG", "PPM")  # formats whose grey values wider than 8 bits run to 65535 in PIL


def is_image(name: str) -> bool:
    """Whether a file of this name is read as an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


@contextmanager
def opened(source: bytes | Path | BinaryIO, where: object) -> Iterator[ImageFile]:
    """Within: the image of a path or stream, its pixels not read yet; any failure there is a WinnowError that names
    `where`.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(os.fsdecode(source) if isinstance(source, bytes | Path) else source)
        with image:
            yield image
    except WinnowError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise WinnowError(f"{where}: refused, {_first_line(error)}; shrink the image or leave it out") from None
    except Exception as error:  # PIL's readers raise nearly anything (struct.error, SyntaxError, ...) on damaged files
        raise WinnowError(f"{where}: cannot be decoded ({_first_line(error)}); remove or replace the file") from None


def size_of(source: bytes | Path | BinaryIO, where: object) -> tuple[int, int]:
    """(height, width) from the header alone; WinnowError when it cannot be read."""
    with opened(source, where) as image:
        return image.height, image.width


def as_rgb(image: Picture, where: object) -> Picture:
    """An 8-bit RGB picture of an opened image; the same object when it is one already."""
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _from_wide_grey(image, where)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a palette's transparency, which is dropped in any case
        return image.convert("RGB")


def read(source: bytes | Path | BinaryIO, where: object) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An image as uint8 (H,W,3); WinnowError when it cannot be decoded."""
    with opened(source, where) as image:
        return np.asarray(as_rgb(image, where))


def _from_wide_grey(image: Picture, where: object) -> Picture:
    from PIL import Image

    wide = np.asarray(image)
    if image.mode == "F" or (image.mode == "I" and image.format not in _SIXTEEN_BITS):
        raise WinnowError(
            f"{where}: {wide.dtype} pixels have no known range; save the image with 8 or 16 bits a channel"
        )
    if wide.size and (wide.min() < 0 or wide.max() > 65535):
        raise WinnowError(f"{where}: pixels outside 0..65535; save the image with 8 or 16 bits a channel")
    return Image.fromarray(((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
