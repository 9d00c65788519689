"""The one reader layer for what comes from outside: regular files, bounded sizes, bounded depth, one line for anything
else.

Whoever hands a file to a library that opens it by name (safetensors, torch, NumPy, tarfile) asks `regular` first;
whoever reads bytes takes `read_bytes`, which cannot be made to wait by a FIFO nor to fill the memory from a device.
"""

from __future__ import annotations

import json
import os
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

from winnow.errors import WinnowError

LARGEST_JSON = 256 << 20  # bytes of a record; the metrics of an evaluation of ImageNet take a few hundred KB
LARGEST_TABLE = 4 << 30  # bytes of a table of texts, unpacked; as Python objects it takes several times as much
DEEPEST = 100  # lists and mappings in one another; winnow's own records have 10
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


@cache
def memory() -> int:
    """Bytes of memory that this process may have: the machine's, or its control group's where that is less."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdigit() else whole


def regular(path: str | Path, largest: int | None = None, missing: str = "correct the path") -> Path:
    """`path`, if it is a regular file of at most `largest` bytes (None: the memory); WinnowError otherwise.

    missing: how to mend a path at which nothing is.
    """
    path = Path(path)
    with _in_words(path, missing):
        status = path.stat()
    _check(path, status, largest)
    return path


@contextmanager
def _in_words(path: str | Path, missing: str = "correct the path") -> Iterator[None]:
    """What the system says against a path, as one line."""
    try:
        yield
    except FileNotFoundError:
        raise WinnowError(f"{path}: no such file; {missing}") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise WinnowError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _check(path: Path, status: os.stat_result, largest: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
        raise WinnowError(f"{path}: is {kind}, not a regular file; give the file itself")
    limit = memory() if largest is None else largest
    if status.st_size > limit:
        raise WinnowError(
            f"{path}: holds {status.st_size:,} bytes, more than the {limit:,} that are read of such a file"
        )


def opened(path: str | Path, largest: int | None = None, missing: str = "correct the path") -> IO[bytes]:
    """The file open for reading; checked after it was opened, so that nothing can be put in its place in between."""
    path = Path(path)
    with _in_words(path, missing):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(path, os.fstat(handle), largest)
    except BaseException:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def read_bytes(path: str | Path, largest: int | None = None, missing: str = "correct the path") -> bytes:
    """All bytes of a regular file of at most `largest` bytes."""
    with opened(path, largest, missing) as f, _in_words(path):
        return f.read()


def unpacked(path: str | Path, largest: int) -> bytes:
    """What a gzip file of regular size unpacks to, at most `largest` bytes; ValueError when it is no gzip file or cut
    off.
    """
    data, parts, size = read_bytes(path, largest), [], 0
    while data:  # a file may hold several members, and zeros after the last
        unzip = zlib.decompressobj(wbits=31)
        while not unzip.eof:
            part = unzip.decompress(data, 1 << 24)
            data = unzip.unconsumed_tail
            if not (part or data or unzip.eof):
                raise ValueError("the gzip data end before their end mark")
            size += len(part)
            if size > largest:
                raise WinnowError(f"{path}: unpacks to more than the {largest:,} bytes that are read of such a file")
            parts.append(part)
        data = unzip.unused_data.lstrip(b"\0")
    return b"".join(parts)


def check_zip(path: str | Path, largest: int | None = None) -> None:
    """Raise WinnowError for a zip archive (.npz, torch checkpoints) whose members unpack to more than `largest` (the
    memory).
    """
    limit = memory() if largest is None else largest
    regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # no zip archive: whoever reads it says so in its own words
    if size > limit:
        raise WinnowError(f"{path}: unpacks to {size:,} bytes, more than the {limit:,} that are read of such a file")


def parse_json(text: str | bytes, deepest: int = DEEPEST) -> Any:
    """The value of a JSON text; ValueError for anything else, and for what is nested more than `deepest` levels."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested more than {deepest} levels deep") from None
    level: list[Any] = [value]
    for _ in range(deepest):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError(f"nested more than {deepest} levels deep")


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def read_json(path: str | Path, largest: int = LARGEST_JSON, missing: str = "correct the path") -> Any:
    """The value in a JSON file; ValueError when it is none, WinnowError when the file is not one that is read."""
    return parse_json(read_bytes(path, largest, missing))
