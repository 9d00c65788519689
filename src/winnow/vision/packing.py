"""Packing image files into the one .npz of uint8 arrays that the npz loader reads. Archives are read in memory, never unpacked."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from winnow.artifacts import atomic_path
from winnow.errors import WinnowError
from winnow.vision.sources import IMAGE_SUFFIXES

SPLITS = {"train": "train", "test": "test", "val": "test", "valid": "test"}
Item = tuple[str, str, bytes]  # split, class name, encoded image


def pack(source: Path, out: Path, image_size: int | None) -> dict[str, int]:
    """Write `out` from a folder or tar of <train|test|val>/<class>/<image>, or an npz of JPEG bytes; counts by array.

    image_size: side that every image is resized to (antialiased); None: they must all have one size already. An npz of JPEG
    bytes holds <split>_jpeg (all bytes joined), <split>_offsets (N+1) and y_<split> (N labels).
    """
    images: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    labels: dict[str, list[str]] = {"train": [], "test": []}
    for split, label, data in _items(source):
        images[split].append(_decode(data, image_size, f"{source}: {label}"))
        labels[split].append(label)
    names = sorted({*labels["train"], *labels["test"]}, key=lambda n: (not n.isdigit(), int(n) if n.isdigit() else 0, n))
    for split in images:
        if not images[split]:
            raise WinnowError(f"{source}: holds no {split} images; expected train/<class>/ and test/<class>/ or val/<class>/")
        shapes = {i.shape for i in images[split]}
        if len(shapes) > 1:
            raise WinnowError(f"{source}: images of different sizes ({sorted(shapes)[:2]}); set image_size")
    arrays = {f"{s}_images": np.stack(images[s]) for s in images}
    arrays |= {f"{s}_labels": np.array([names.index(n) for n in labels[s]], dtype=np.int64) for s in labels}
    with atomic_path(out) as temporary, temporary.open("wb") as f:
        np.savez(f, **arrays, class_names=np.array(names))  # type: ignore[arg-type]
    return {name: len(array) for name, array in arrays.items()} | {"classes": len(names)}


def _items(source: Path) -> Iterator[Item]:
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if item := _member(PurePosixPath(path.relative_to(source).as_posix())):
                yield *item, path.read_bytes()
    elif source.suffix == ".npz":
        yield from _jpeg_arrays(source)
    else:
        yield from _tar(source)


def _member(path: PurePosixPath) -> tuple[str, str] | None:
    """(split, class) of <...>/<split>/<class>/<...image>; None for anything else."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return None
    for i, name in enumerate(path.parts[:-2]):
        if name in SPLITS:
            return SPLITS[name], path.parts[i + 1]
    return None


def _tar(source: Path) -> Iterator[Item]:
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                item = _member(PurePosixPath(member.name)) if member.isfile() else None
                if item and (handle := archive.extractfile(member)):
                    yield *item, handle.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise WinnowError(f"{source}: not a complete tar archive ({error}); fetch it again") from None


def _jpeg_arrays(source: Path) -> Iterator[Item]:
    try:
        with np.load(source, allow_pickle=False) as stored:
            for name in [n.removesuffix("_jpeg") for n in stored.files if n.endswith("_jpeg")]:
                data, offsets, labels = stored[f"{name}_jpeg"], stored[f"{name}_offsets"], stored[f"y_{name}"]
                for i, label in enumerate(labels):
                    yield SPLITS[name], str(label), data[offsets[i] : offsets[i + 1]].tobytes()
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise WinnowError(f"{source}: no <split>_jpeg, <split>_offsets and y_<split> arrays to read ({error})") from None


def _decode(data: bytes, image_size: int | None, what: str) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            image = image.convert("RGB")  # type: ignore[assignment]
            if image_size is not None and image.size != (image_size, image_size):
                image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)  # type: ignore[assignment]
            return np.array(image)
    except (UnidentifiedImageError, OSError) as error:
        raise WinnowError(f"{what}: an image cannot be decoded ({error})") from None
