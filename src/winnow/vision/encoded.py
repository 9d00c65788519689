"""Encoded images that are about to be packed: in a folder, a tar of one, or an .npz of JPEG bytes.

What there is and in which order is known first (`items`); the images themselves come one at a time (`stream`), so
memory does not grow with their number. Archives are read where they are, never unpacked.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from winnow import outside
from winnow.artifacts import sha256_text
from winnow.errors import WinnowError
from winnow.vision import folders
from winnow.vision.folders import HELD_OUT, Layout, layout, splits
from winnow.vision.images import is_image

LARGEST_IMAGE = 1 << 30  # bytes of an encoded image
Streamed = tuple[int, str, bytes | Path]  # number of the item, its name, its bytes or the file that holds them


@dataclass(frozen=True)
class Encoded:
    """Images of one source: class names, class numbers of each split, and their stream; `train`'s images are numbered
    first.

    identity: sha256 of what there is (names, order, classes, not contents). stream(wanted) yields the items whose
    numbers `wanted` accepts, in the order in which the source gives them best.
    """

    names: list[str]
    labels: dict[str, np.ndarray]
    identity: str
    stream: Callable[[Callable[[int], bool]], Iterator[Streamed]]

    def rows(self, split: str) -> range:
        """Numbers of the items of a split."""
        train = len(self.labels["train"])
        return range(train) if split == "train" else range(train, train + len(self.labels["test"]))


def _laid_out(found: Layout) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Paths of all images as bytes, train first, and the class numbers of each split: a few arrays, however many there
    are.
    """
    parts = {split: found.images(split) for split in ("train", "test")}
    paths = np.array([os.fsencode(path) for part in parts.values() for path, _ in part])
    return paths, {split: np.array([label for _, label in part], dtype=np.int64) for split, part in parts.items()}


def _identity(names: list[str], labels: dict[str, np.ndarray], *contents: np.ndarray) -> str:
    return sha256_text(
        *names, *(hashlib.sha256(np.ascontiguousarray(a).data).hexdigest() for a in (*labels.values(), *contents))
    )


def find(source: Path) -> Encoded:
    """The images of `source`; WinnowError when it is not <train>/<class>/<image> beside a test split, or cannot be
    read.
    """
    if source.is_dir():
        return _folder(source)
    outside.regular(source, sys.maxsize)
    return _jpeg_arrays(source) if source.suffix == ".npz" else _tar(source)


def _folder(source: Path) -> Encoded:
    inner = [p for p in source.iterdir() if p.is_dir() and not p.name.startswith(".")]
    base = inner[0] if len(inner) == 1 and inner[0].name != "train" and (inner[0] / "train").is_dir() else source
    found = folders.read(base)
    paths, labels = _laid_out(found)

    def stream(wanted: Callable[[int], bool]) -> Iterator[Streamed]:
        for number in filter(wanted, range(len(paths))):
            path = base / os.fsdecode(paths[number])
            yield number, str(path), path

    return Encoded(found.names, labels, _identity(found.names, labels, paths), stream)


def _tar(source: Path) -> Encoded:
    places: dict[str, int] = {}
    entries: list[tuple[str, bool]] = []
    for member in _members(source):
        path = member.name
        if member.issparse() or (is_image(path) and member.size > LARGEST_IMAGE):
            raise WinnowError(
                f"{source}: {path} is sparse, or larger than any image ({member.size:,} bytes); leave it out"
            )
        if member.issym() or member.islnk():
            if is_image(path):
                raise WinnowError(f"{source}: {member.name} is a link; unpack the archive and pack the folder")
        elif member.isdir() or (member.isfile() and path not in places):
            entries.append((path, member.isdir()))
        if member.isfile():
            places[path] = member.offset_data  # of a name that comes twice, the last one counts, as when it is unpacked
    found = layout(splits(entries, anywhere=True), source)
    paths, labels = _laid_out(found)
    offsets = np.array([places[os.fsdecode(path)] for path in paths])
    order = np.argsort(offsets)
    sorted_offsets = offsets[order]
    del places, entries

    def number_at(offset: int) -> int | None:
        at = int(np.searchsorted(sorted_offsets, offset))
        return int(order[at]) if at < len(order) and sorted_offsets[at] == offset else None

    def stream(wanted: Callable[[int], bool]) -> Iterator[Streamed]:
        for member, data in _contents(source, lambda at: (number := number_at(at)) is not None and wanted(number)):
            number = number_at(member.offset_data)
            assert number is not None
            yield number, f"{source}: {member.name}", data

    return Encoded(found.names, labels, _identity(found.names, labels, paths), stream)


def _members(source: Path) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                yield member
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise WinnowError(f"{source}: not a complete tar archive ({error}); fetch it again") from None


def _contents(source: Path, wanted: Callable[[int], bool]) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(source) as archive:
        for member in archive:
            if member.isfile() and wanted(member.offset_data) and (handle := archive.extractfile(member)):
                yield member, handle.read()
            archive.members = []  # type: ignore[attr-defined]


def _jpeg_arrays(source: Path) -> Encoded:
    """<split>_jpeg (all bytes joined), <split>_offsets (N+1) and y_<split> (N labels) of train and one other split."""
    outside.check_zip(source)
    try:
        with np.load(source, allow_pickle=False) as stored:
            held = next((name for name in HELD_OUT if f"{name}_jpeg" in stored), "test")
            parts = {s: tuple(stored[k] for k in (f"{n}_jpeg", f"{n}_offsets", f"y_{n}")) for s, n in
                     (("train", "train"), ("test", held))}  # fmt: skip
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        raise WinnowError(
            f"{source}: no <split>_jpeg, <split>_offsets and y_<split> arrays to read ({error})"
        ) from None
    for split, (data, offsets, y) in parts.items():
        if (
            y.ndim != 1
            or len(y) == 0
            or offsets.shape != (len(y) + 1,)
            or offsets.dtype.kind not in "iu"
            or data.dtype != np.uint8
        ):
            raise WinnowError(f"{source}: {split}: uint8 bytes, N labels and N+1 offsets expected")
        if offsets[0] < 0 or offsets[-1] > len(data) or (np.diff(offsets.astype(np.int64)) < 0).any():
            raise WinnowError(f"{source}: {split}: offsets must rise within the {len(data)} bytes")
    said = {split: [str(y) for y in part[2]] for split, part in parts.items()}
    names = sorted(
        {*said["train"], *said["test"]}, key=lambda n: (not n.isdecimal(), int(n) if n.isdecimal() else 0, n)
    )
    number_of = {name: number for number, name in enumerate(names)}
    labels = {split: np.array([number_of[y] for y in part], dtype=np.int64) for split, part in said.items()}
    first = {"train": 0, "test": len(labels["train"])}

    def stream(wanted: Callable[[int], bool]) -> Iterator[Streamed]:
        for split, (data, offsets, _) in parts.items():
            for i in range(len(offsets) - 1):
                if wanted(first[split] + i):
                    yield first[split] + i, f"{source}: {split} image {i}", data[offsets[i] : offsets[i + 1]].tobytes()

    return Encoded(names, labels, _identity(names, labels, *(part[0] for part in parts.values())), stream)
