"""sha256 of data that many jobs read: contents are read once, and again when a file's name, size or time has
changed.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from contextlib import suppress
from pathlib import Path

from winnow import places
from winnow.artifacts import read_json, seal_holds, sha256_file, sha256_text, write_record
from winnow.errors import WinnowError

log = logging.getLogger("winnow")
SETTLED = 2.0  # seconds after which another write to a file must show in its time
_DIGEST = re.compile("[0-9a-f]{64}")


def remembered(path: Path, memory: Path) -> str:
    """The sha256 of a file or folder (as `winnow.artifacts.sha256_file`), read from its contents at most once per
    state.

    What was found is kept in `memory`, a folder that only this user can enter. A file that changes and keeps its size
    and its time of change is not noticed.
    """
    listing, newest, files = _state(path)
    note = memory / f"{sha256_text(str(path.absolute()))}.json"
    if known := _known(note, listing):
        return known
    if files > 1:
        log.info("%s: reading %d files once, to know them by their contents in the store", path, files)
    found = sha256_file(path)
    if time.time() - newest > SETTLED and _state(path)[0] == listing:
        with suppress(WinnowError, OSError):  # it is read again the next time
            memory.parent.mkdir(parents=True, exist_ok=True)
            places.private(memory, lock=False)
            write_record(note, {"listing": listing, "sha256": found})
    return found


def _known(note: Path, listing: str) -> str | None:
    with suppress(WinnowError, OSError):
        if note.is_file() and note.stat().st_uid == os.geteuid() and seal_holds(note):
            said = read_json(note)
            if isinstance(said, dict) and said.get("listing") == listing:
                digest = said.get("sha256")
                return digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else None
    return None


def _state(path: Path) -> tuple[str, float, int]:
    """Names, sizes and times of the files as a hash, the newest time, and how many they are."""
    said, newest = [], 0.0
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        with suppress(FileNotFoundError):  # a link to nothing, which no hash of a folder counts
            status = file.stat()
            if stat.S_ISREG(status.st_mode):
                name = file.relative_to(path).as_posix()
                said.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}")
                newest = max(newest, status.st_mtime, status.st_ctime)
    return sha256_text(*said), newest, len(said)
