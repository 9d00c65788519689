"""Places that belong to one run alone: scratch that nobody else can prepare or use meanwhile, temporaries that a kill
has left.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from winnow.errors import WinnowError

log = logging.getLogger("winnow")
_PATIENCE = 10.0  # seconds in which a run that was killed, and its workers, let go of their folder
_ABANDONED = 2.0  # seconds after which a temporary that nobody has locked is a leftover
_held: dict[Path, int] = {}  # folders that this process has locked -> the descriptor with the lock


def private(folder: Path, lock: bool = True) -> None:
    """Make `folder` this user's own (0700) and, with `lock`, this process's until `release` or its end.

    WinnowError when it is a link, another user's, or locked by another process.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        raise WinnowError(
            f"{folder}: is a link or a file, not a folder; remove it, or give another --scratch"
        ) from None
    except OSError as error:
        raise WinnowError(
            f"{folder}: cannot be written ({error.strerror}); free space or change the folder (--scratch)"
        ) from None
    try:
        status = os.fstat(handle)
        if status.st_uid != os.geteuid():
            raise WinnowError(
                f"{folder}: belongs to another user, who could change what is kept there; give another --scratch"
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            os.fchmod(handle, 0o700)
        if lock and folder.absolute() not in _held:
            _wait_for(folder, handle)
            _held[folder.absolute()], handle = handle, -1
    finally:
        if handle >= 0:
            os.close(handle)


def release(folder: Path) -> None:
    """Let other processes have the folder."""
    handle = _held.pop(folder.absolute(), None)
    if handle is not None:
        os.close(handle)


def discard(folders: Iterable[Path]) -> None:
    """Remove those of the folders that are this user's and that no process has locked; links stay."""
    for folder in folders:
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(handle).st_uid == os.geteuid():
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError where somebody has it, or has no locks
                    shutil.rmtree(folder)
            finally:
                os.close(handle)


def _wait_for(folder: Path, handle: int) -> None:
    until, told = time.monotonic() + _PATIENCE, False
    while not _locked(handle):
        if not told:
            log.info("%s: is in use by another run of this job; waiting for %g s", folder, _PATIENCE)
            told = True
        if time.monotonic() > until:
            raise WinnowError(f"{folder}: another run of this job is at work; wait until it has ended, or end it")
        time.sleep(0.05)


def _locked(handle: int) -> bool:
    """Whether the lock is this process's now; True also on file systems without locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


@contextmanager
def marked(temporary: Path) -> Iterator[None]:
    """Within: a sweep leaves the temporary file or folder alone."""
    handle = os.open(temporary, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _inside(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def sweep(path: Path) -> None:
    """Remove the temporaries beside (or, of a folder, in) `path` that runs which were killed have left: this user's,
    seconds old, and locked by nobody."""
    beside = [p for p in _inside(path.parent) if p.name.startswith(f".{path.name}.") and p.suffix == ".tmp"]
    for found in beside + [p for p in _inside(path) if p.name.startswith(".") and p.suffix == ".tmp"]:
        with suppress(OSError):
            handle = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                status = os.fstat(handle)
                if status.st_uid != os.geteuid() or abs(time.time() - status.st_mtime) < _ABANDONED:
                    continue
                # OSError where somebody has it, or there are no locks
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(found) if stat.S_ISDIR(status.st_mode) else found.unlink()
            finally:
                os.close(handle)
