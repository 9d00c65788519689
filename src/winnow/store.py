"""A folder of finished artifacts that several working folders share, so that the same work is done once.

An entry is named by the hash of all that its artifacts say of themselves (configuration, code, parents, versions,
device, paths) and of the data files that the configuration names: it fits a job exactly or not at all. It appears by
one rename, so writers need no lock, and its contents are checked against their sha256 when they are taken out. Files
are copied, never linked: an artifact that is damaged later must not damage the store, and Snakemake wants outputs that
are newer than inputs.

Whoever may write to the folder is trusted: entries are checked against accidents. In a folder that everyone may write
to, only one's own entries are taken; with a key (`WINNOW_STORE_KEY`), only those that were signed with it.
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import shutil
import stat
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

from winnow import outside
from winnow.artifacts import (
    MODEL_FILE,
    atomic_path,
    local,
    read_json,
    read_metadata,
    seal_holds,
    sha256_file,
    sha256_text,
    write_record,
)
from winnow.errors import WinnowError
from winnow.schema import canonical_json

log = logging.getLogger("winnow")
MANIFEST = "manifest.json"
# environment variable: the file with a secret that signs entries and without which none is taken
KEY = "WINNOW_STORE_KEY"
_DIGEST = re.compile("[0-9a-f]{64}")


class Work(Protocol):
    """What a store asks of a job."""

    stage: str
    outputs: dict[str, Path]

    def paths(self, name: str) -> list[Path]:
        """The paths of an output."""
        ...

    def files(self, output: str) -> list[Path]:
        """The files that an output consists of."""
        ...

    def data_digests(self) -> list[str]:
        """The sha256 of each data file or folder that it reads."""
        ...

    def provenance(self, path: Path) -> dict[str, Any]:
        """What the artifact at `path` says of itself."""
        ...


class _DamagedError(Exception):
    """An entry is not what was put in."""


def entry_of(store: Path, job: Work, processes: int) -> Path:
    """Where this job's outputs lie in the store, if they do. As many processes must have made them: they decide the
    bytes.
    """
    says = [canonical_json(job.provenance(path)) for name in job.outputs for path in job.paths(name)]
    key = sha256_text(str(processes), *says, *job.data_digests())
    return store / key[:2] / key


def take(entry: Path, job: Work) -> bool:
    """Put the outputs of `entry` in place, all or none; False when it is not there, or damaged and therefore thrown
    away.
    """
    if not entry.is_dir():
        return False
    if stranger := _stranger(entry):
        log.warning("%s: not taken, the work is done here (%s)", entry, stranger)
        return False
    try:
        with ExitStack() as renames:
            taken: dict[Path, Path] = {}
            for path, digest in _manifest(entry, job).items():
                temporary = taken[Path(path).absolute()] = renames.enter_context(atomic_path(path))
                _copy(entry / digest, temporary)
                if sha256_file(temporary) != digest:
                    raise _DamagedError(f"{path} has other bytes than were put in")
            _check_whole(taken, job)
    except _DamagedError as error:
        log.warning("%s is damaged (%s): it is thrown away and the work done again", entry, error)
        with (
            suppress(OSError),  # another user's: it stays, and is not taken the next time either
            tempfile.TemporaryDirectory(dir=entry.parent, prefix=".bad-", ignore_cleanup_errors=True) as away,
        ):
            if entry.exists():
                os.replace(entry, Path(away) / entry.name)
        return False
    log.info("taken from the store, nothing is computed: %s", entry)
    return True


def _manifest(entry: Path, job: Work) -> dict[str, str]:
    """Path -> sha256 of the entry's files; none of them lies outside the job's outputs."""
    file = entry / MANIFEST
    try:
        if not seal_holds(file):
            raise _DamagedError("its manifest does not hold")
        document = read_json(file)
    except WinnowError as error:
        raise _DamagedError(str(error)) from None
    if not isinstance(document, dict) or not isinstance(document.get("files"), dict) or not document["files"]:
        raise _DamagedError("its manifest lists no files")
    files: dict[str, str] = document["files"]
    if not all(
        isinstance(d, str) and _DIGEST.fullmatch(d) and "\0" not in p and len(p) < 4096 for p, d in files.items()
    ):
        raise _DamagedError("its manifest lists what are no files")
    if (key := _key()) is not None and not hmac.compare_digest(
        str(document.get("hmac")), _signature(key, entry, files)
    ):
        raise _DamagedError(f"its manifest is not signed with the key of {KEY}")
    outputs = [path.absolute() for name in job.outputs for path in job.paths(name)]
    own = [path.parent if path.name == MODEL_FILE else path for path in outputs]
    for path in files:
        if ".." in Path(path).parts or not any(Path(path).absolute().is_relative_to(o) for o in own):
            raise _DamagedError(f"{path} is no output of this job")
    return files


def _stranger(entry: Path) -> str | None:
    """Why an entry is not to be trusted: in a folder that everyone may write to, only this user's own count, and
    root's.
    """
    try:
        open_to_all = any(p.stat().st_mode & stat.S_IWOTH for p in (entry.parent.parent, entry.parent, entry))
        owner = entry.lstat().st_uid
    except OSError as error:
        return str(error.strerror)
    if entry.is_symlink():
        return "it is a link"
    if open_to_all and owner not in (os.geteuid(), 0):
        return (
            f"everyone can write there, and it belongs to user {owner}; take write permission from others, "
            "or use your own store"
        )
    return None


def _check_whole(taken: dict[Path, Path], job: Work) -> None:
    """Raise _DamagedError unless every output is there, says of itself what this job says of it, and is vouched for in
    full.
    """
    for path in (p for name in job.outputs for p in job.paths(name)):
        inside = [t for p, t in taken.items() if p == path.absolute() or p.is_relative_to(path.absolute())]
        if not inside:
            raise _DamagedError(f"{path} is not in it")
        if path.suffix not in (".safetensors", ".json") or path.absolute() not in taken or path.name == MODEL_FILE:
            continue
        file = taken[path.absolute()]
        try:
            if not seal_holds(file):
                raise _DamagedError(f"the seal of {path} does not hold")
            about = read_json(file) if path.suffix == ".json" else read_metadata(file)
        except WinnowError as error:
            raise _DamagedError(str(error)) from None
        said = about.get("provenance", about) if isinstance(about, dict) else {}
        expected = {k: v for k, v in job.provenance(path).items() if k != "processes"}
        if not isinstance(said, dict) or canonical_json({k: said.get(k) for k in expected}) != canonical_json(expected):
            raise _DamagedError(f"{path} is of another job")
        named = about.get("outputs", {})
        lacking = [n for n in named if Path(n).absolute() not in taken] if isinstance(named, dict) else ["outputs"]
        if lacking:
            raise _DamagedError(f"{lacking[0]} is not in it")


def _key() -> bytes | None:
    """The secret in the file that the environment names; WinnowError for one that others can read. None without one."""
    if not (name := os.environ.get(KEY)):
        return None
    with outside.opened(name, 4096, missing=f"{KEY} names the file with the store's key") as f:
        if os.fstat(f.fileno()).st_mode & 0o077:
            raise WinnowError(f"{name}: others can read the store's key; chmod 600 it")
        secret = f.read().strip()
    if len(secret) < 16:
        raise WinnowError(
            f"{name}: the store's key is shorter than 16 bytes; write e.g. `openssl rand -hex 32` into it"
        )
    return secret


def _signature(key: bytes, entry: Path, files: dict[str, str]) -> str:
    """HMAC-SHA256 over the entry's name and the files in it."""
    return hmac.new(key, canonical_json({"entry": entry.name, "files": files}).encode(), "sha256").hexdigest()


def _copy(source: Path, target: Path) -> None:
    try:
        stream = outside.opened(source)
    except WinnowError as error:
        raise _DamagedError(str(error)) from None
    with stream, target.open("wb") as out:
        shutil.copyfileobj(stream, out, 1 << 20)


def publish(entry: Path, job: Work) -> None:
    """Put the job's outputs into the store. The job is done either way: a store that cannot be written is a warning."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".new-", ignore_cleanup_errors=True) as made:
            files = {}
            for path in (f for name in job.outputs for f in job.files(name)):
                files[local(path)] = digest = sha256_file(path)
                with atomic_path(Path(made) / digest) as temporary:
                    shutil.copyfile(path, temporary)
            key = _key()
            signed = {} if key is None else {"hmac": _signature(key, entry, files)}
            write_record(Path(made) / MANIFEST, {"files": files, "stage": job.stage, **signed})
            Path(made).chmod(0o755)
            Path(made).rename(entry)  # fails when another writer was first, whose entry is as good
        log.info("put into the store: %s", entry)
    except (OSError, WinnowError) as error:
        if not entry.is_dir():
            log.warning("%s: not put into the store (%s)", entry, error)
