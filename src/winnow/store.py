"""A folder of finished artifacts that several working folders share, so that the same work is done once.

An entry is named by the hash of all that its artifacts say of themselves (configuration, code, parents, versions, device, paths)
and of the data files that the configuration names: it fits a job exactly or not at all. It appears by one rename, so writers
need no lock, and its contents are checked against their sha256 when they are taken out. Files are copied, never linked: an
artifact that is damaged later must not damage the store, and Snakemake wants outputs that are newer than inputs.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from winnow.artifacts import MODEL_FILE, atomic_path, local, read_json, seal_holds, sha256_file, sha256_text, write_record
from winnow.errors import WinnowError
from winnow.schema import canonical_json

log = logging.getLogger("winnow")
MANIFEST = "manifest.json"


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

    def data_files(self) -> list[Path]:
        """The data files that it reads."""
        ...

    def provenance(self, path: Path) -> dict[str, Any]:
        """What the artifact at `path` says of itself."""
        ...


class _DamagedError(Exception):
    """An entry is not what was put in."""


def entry_of(store: Path, job: Work, processes: int) -> Path:
    """Where this job's outputs lie in the store, if they do. As many processes must have made them: they decide the bytes."""
    says = [canonical_json(job.provenance(path)) for name in job.outputs for path in job.paths(name)]
    key = sha256_text(str(processes), *says, *map(sha256_file, job.data_files()))
    return store / key[:2] / key


def take(entry: Path, job: Work) -> bool:
    """Put the outputs of `entry` in place, all or none; False when it is not there, or damaged and therefore thrown away."""
    if not entry.is_dir():
        return False
    try:
        with ExitStack() as renames:
            for path, digest in _manifest(entry, job).items():
                temporary = renames.enter_context(atomic_path(path))
                _copy(entry / digest, temporary)
                if sha256_file(temporary) != digest:
                    raise _DamagedError(f"{path} has other bytes than were put in")
    except _DamagedError as error:
        log.warning("%s is damaged (%s): it is thrown away and the work done again", entry, error)
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".bad-", ignore_cleanup_errors=True) as away:
            if entry.exists():
                os.replace(entry, Path(away) / entry.name)
        return False
    log.info("taken from the store, nothing is computed: %s", entry)
    return True


def _manifest(entry: Path, job: Work) -> dict[str, str]:
    """Path -> sha256 of the entry's files; none of them lies outside the job's outputs."""
    file = entry / MANIFEST
    if not file.exists() or not seal_holds(file):
        raise _DamagedError("its manifest does not hold")
    files: dict[str, str] = read_json(file)["files"]
    outputs = [path.absolute() for name in job.outputs for path in job.paths(name)]
    own = [path.parent if path.name == MODEL_FILE else path for path in outputs]
    for path in files:
        if ".." in Path(path).parts or not any(Path(path).absolute().is_relative_to(o) for o in own):
            raise _DamagedError(f"{path} is no output of this job")
    return files


def _copy(source: Path, target: Path) -> None:
    try:
        stream = source.open("rb")
    except OSError as error:
        raise _DamagedError(f"{source.name}: {error.strerror}") from None
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
            write_record(Path(made) / MANIFEST, {"files": files, "stage": job.stage})
            Path(made).chmod(0o755)
            Path(made).rename(entry)  # fails when another writer was first, whose entry is as good
        log.info("put into the store: %s", entry)
    except (OSError, WinnowError) as error:
        if not entry.is_dir():
            log.warning("%s: not put into the store (%s)", entry, error)
