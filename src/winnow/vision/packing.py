"""Packing encoded images into a set of memory-mapped 8-bit pixels (`winnow.vision.packed`), of any number of images.

Images are streamed: memory does not grow with their number, only their names and places are kept. Each one's checksum
is written after its pixels, so a run that was cut off goes on where it stopped, and pixels that do not match are made
again.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from winnow.artifacts import sha256_file, sha256_text
from winnow.errors import WinnowError
from winnow.vision import images
from winnow.vision.augment import pixels_of
from winnow.vision.encoded import Encoded, Streamed, find
from winnow.vision.packed import FORMAT, RECORD

log = logging.getLogger("winnow")
CHUNK = 64  # images that a process takes at a time
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Resize:
    """What is stored: squares of side `image_size`, or the short side at `short_side`, or (both None) images as they
    are.
    """

    image_size: int | None = None
    short_side: int | None = None

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Stored (height, width) of an image; the long side is cut to whole pixels, as torchvision's Resize does."""
        if self.image_size is not None:
            return self.image_size, self.image_size
        if self.short_side is None:
            return height, width
        long = int(self.short_side * max(height, width) / min(height, width))
        return (self.short_side, long) if height <= width else (long, self.short_side)


def pack(source: Path, out: Path, resize: Resize, processes: int = 1) -> dict[str, int]:
    """Write the packed set `out` (a folder) of a folder or tar of images, or an npz of JPEG bytes; returns what it
    holds.

    The work is done in `.<out>.partial` beside it, which a later call with the same source and sizes goes on with.
    Raises WinnowError for a source that is no set, an image that cannot be decoded, a full disk, or another set at
    `out`.
    """
    found = find(source)
    key = sha256_text(repr(resize), found.identity)
    counts = {f"{s}_images": len(found.rows(s)) for s in SPLITS} | {"classes": len(found.names)}
    if out.exists():
        if (out / RECORD).is_file() and json.loads((out / RECORD).read_text()).get("key") == key:
            check(out)
            log.info("%s: packed before, and every image has the bytes that were packed", out)
            return counts
        raise WinnowError(f"{out}: is there already and holds something else; remove it, or pack into another folder")
    partial = out.with_name(f".{out.name}.partial")
    if partial.exists() and (not (partial / "key").is_file() or (partial / "key").read_text() != key):
        shutil.rmtree(partial)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        (partial / "key").write_text(key)
        with _Processes(processes) as run:
            index = _laid_out(found, partial, resize, run)
            _fill(found, partial, index, run)
        _record(found, partial, index, key, resize)
        partial.replace(out)
    except OSError as error:
        raise WinnowError(
            f"{out}: cannot be written ({error.strerror or error}); free space or change the folder"
        ) from None
    return counts


def check(folder: Path) -> None:
    """Read a packed set to the end; WinnowError names the first image whose pixels are not those that were packed."""
    record = json.loads((folder / RECORD).read_text())
    for split in SPLITS:
        for name, expected in record["splits"][split]["sha256"].items():
            if sha256_file(folder / name) != expected:
                raise WinnowError(f"{folder / name}: has other bytes than were packed; pack the set again")
        wrong = np.flatnonzero(~_intact(folder, split, np.load(folder / f"{split}_index.npy")))
        if len(wrong):
            raise WinnowError(
                f"{folder}: image {wrong[0]} of {split} has other bytes than were packed; pack the set again"
            )


# layout
# ----------------------------------------------------------------------------------------------------------------------


def _laid_out(found: Encoded, partial: Path, resize: Resize, run: Run) -> dict[str, np.ndarray]:
    """Index of each split (see `winnow.vision.packed`), its pixel file made and its checksums at zero; kept from an
    earlier run.
    """
    if not all((partial / f"{s}_digests.npy").is_file() for s in SPLITS):
        sizes = np.empty((sum(map(len, found.labels.values())), 2), np.int64)
        if resize.image_size is not None:
            sizes[:] = resize.image_size
        else:
            for numbers, values in run(_sizes, _chunks(found.stream(lambda number: True)), resize):
                sizes[numbers] = values
        for split in SPLITS:
            rows = found.rows(split)
            index = np.zeros((len(rows), 4), np.int64)
            index[:, 1:3] = sizes[rows.start : rows.stop]
            lengths = 3 * index[:, 1] * index[:, 2]
            index[:, 0] = np.cumsum(lengths) - lengths
            index[:, 3] = found.labels[split]
            np.save(partial / f"{split}_index.npy", index)
            _make_pixels(partial / f"{split}.npy", int(lengths.sum()))
            _save(partial / f"{split}_digests.npy", np.zeros(len(rows), np.uint64))
    return {split: np.load(partial / f"{split}_index.npy") for split in SPLITS}


def _make_pixels(path: Path, size: int) -> None:
    header = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(size,))
    offset = header.offset  # type: ignore[attr-defined]
    del header
    with path.open("r+b") as f:
        os.posix_fallocate(f.fileno(), 0, offset + size)  # a disk that is too small says so now


def _save(path: Path, array: np.ndarray) -> None:
    temporary = path.with_name(path.name + ".tmp.npy")
    np.save(temporary, array)
    temporary.replace(path)


def _sizes(chunk: list[Streamed], resize: Resize) -> list[tuple[int, int]]:
    return [resize.of(*images.size_of(io.BytesIO(d) if isinstance(d, bytes) else d, name)) for _, name, d in chunk]


# pixels
# ----------------------------------------------------------------------------------------------------------------------


def _fill(found: Encoded, partial: Path, index: dict[str, np.ndarray], run: Run) -> None:
    """Decode, resize and write whatever an earlier run did not, each image at its place."""
    done = np.concatenate([_intact(partial, split, index[split]) for split in SPLITS])
    if done.any():
        log.info("%d of %d images were packed before", int(done.sum()), len(done))
    first = len(index["train"])
    digests = {s: np.lib.format.open_memmap(partial / f"{s}_digests.npy", mode="r+") for s in SPLITS}
    places = {s: _pixel_offset(partial / f"{s}.npy") for s in SPLITS}
    targets = (
        [(number, name, data, *_place(number, first, index, partial, places)) for number, name, data in chunk]
        for chunk in _chunks(found.stream(lambda number: not done[number]))
    )
    for numbers, values in run(_write, targets, None):
        for number, value in zip(numbers, values, strict=True):
            split, row = ("train", number) if number < first else ("test", number - first)
            digests[split][row] = value
    for array in digests.values():
        array.flush()


def _place(
    number: int, first: int, index: dict[str, np.ndarray], partial: Path, places: dict[str, int]
) -> tuple[Any, ...]:
    """(pixel file, offset in it, (height, width)) of item `number`."""
    split, row = ("train", number) if number < first else ("test", number - first)
    offset, height, width, _ = index[split][row].tolist()
    return partial / f"{split}.npy", places[split] + offset, (height, width)


def _write(chunk: list[tuple[Any, ...]], _: None) -> list[int]:
    """Checksums of the images of a chunk, written at their places."""
    found = []
    for _number, name, data, path, offset, size in chunk:
        pixels = images.read(io.BytesIO(data) if isinstance(data, bytes) else data, name)
        stored = np.ascontiguousarray(pixels_of(pixels, size).numpy())
        handle = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(handle, stored.data, offset)
        finally:
            os.close(handle)
        found.append(_digest(stored.data))
    return found


def _digest(data: Any) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") or 1  # 0 says: not packed yet


def _intact(folder: Path, split: str, index: np.ndarray) -> np.ndarray:
    """Which images of a split are there with the bytes that were packed, (N,)."""
    digests = np.load(folder / f"{split}_digests.npy")
    good, start = np.zeros(len(digests), bool), _pixel_offset(folder / f"{split}.npy")
    with (folder / f"{split}.npy").open("rb") as f:
        for row in np.flatnonzero(digests).tolist():
            offset, height, width, _ = index[row].tolist()
            good[row] = _digest(os.pread(f.fileno(), 3 * height * width, start + offset)) == digests[row]
    return good


def _pixel_offset(path: Path) -> int:
    return int(np.load(path, mmap_mode="r").offset)  # type: ignore[attr-defined]


def _record(found: Encoded, partial: Path, index: dict[str, np.ndarray], key: str, resize: Resize) -> None:
    splits = {
        split: {
            "images": len(index[split]),
            "bytes": int((3 * index[split][:, 1] * index[split][:, 2]).sum()),
            "sha256": {name: sha256_file(partial / name) for name in (f"{split}_index.npy", f"{split}_digests.npy")},
        }
        for split in SPLITS
    }
    record = {
        "format": FORMAT, "key": key, "class_names": found.names, "image_size": resize.image_size,
        "short_side": resize.short_side,
        "splits": splits,
    }  # fmt: skip
    (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    (partial / "key").unlink()


# processes
# -------------------------------------------------------------------------------------------------------------------

Run = Callable[[Callable[[Any, Any], list[Any]], Iterable[list[Any]], Any], Iterator[tuple[list[int], list[Any]]]]


class _Processes:
    """Within: run(work, chunks, extra) yields (item numbers, work(chunk, extra)), by several processes in any order."""

    def __init__(self, processes: int):
        self.processes = processes
        self.executor = ProcessPoolExecutor(processes, initializer=_one_thread) if processes > 1 else None

    def __enter__(self) -> Run:
        return self._alone if self.executor is None else self._together

    def __exit__(self, *_: object) -> None:
        if self.executor is not None:
            self.executor.shutdown(cancel_futures=True)

    @staticmethod
    def _alone(work: Any, chunks: Iterable[list[Any]], extra: Any) -> Iterator[tuple[list[int], list[Any]]]:
        for chunk in chunks:
            yield [item[0] for item in chunk], work(chunk, extra)

    def _together(self, work: Any, chunks: Iterable[list[Any]], extra: Any) -> Iterator[tuple[list[int], list[Any]]]:
        assert self.executor is not None
        running: dict[Future[list[Any]], list[int]] = {}
        for chunk in chunks:
            running[self.executor.submit(work, chunk, extra)] = [item[0] for item in chunk]
            while len(running) >= 2 * self.processes:
                yield from self._finished(running)
        while running:
            yield from self._finished(running)

    @staticmethod
    def _finished(running: dict[Future[list[Any]], list[int]]) -> Iterator[tuple[list[int], list[Any]]]:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future.result()


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _chunks(stream: Iterator[Streamed]) -> Iterator[list[Streamed]]:
    chunk: list[Streamed] = []
    for item in stream:
        chunk.append(item)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
