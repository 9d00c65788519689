"""The one way in and out of files: atomic writes, byte-stable safetensors with one metadata key, seals, checked reads.

A seal is the sha256 of the whole file with the seal itself read as zeros. It stands inside the file (in the `winnow`
metadata of a safetensors file, as a key of a JSON record), so any flipped, lost or added byte of the file shows,
wherever it lies.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow import outside, places
from winnow.errors import WinnowError
from winnow.schema import canonical_json

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 1
SIDECAR = "winnow.json"  # the record of a Hugging Face folder
MODEL_FILE = "model.safetensors"  # what names such a folder
METADATA_KEY = "winnow"  # exactly one: with two, safetensors' byte order depends on hash order
_UNSEALED = "0" * 64
# The seal's own place and no text that looks like it: within a JSON string a line break, or a quote behind one
# backslash, cannot be
# of a record; of a safetensors' metadata
_SEAL = re.compile(rb'\n "seal": "([0-9a-f]{64})"|[,{]\\"seal\\":\\"([0-9a-f]{64})\\"')
_LONGEST_HEADER = 100 << 20  # safetensors' own limit
_MISSING = "run the stage that writes it (`snakemake {}`) or correct the path"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`; fsynced and renamed over it on success, removed on any failure.

    Raises WinnowError when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        with places.marked(temporary):
            yield temporary
        with temporary.open("rb") as f:
            os.fsync(f.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise WinnowError(
            f"{path}: cannot be written ({error.strerror or error}); free space or change the folder"
        ) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON with sorted keys atomically; NaN is refused (ValueError)."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False, default=_scalar) + "\n").encode())


def write_record(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write a JSON artifact under a seal."""
    text = json.dumps({**value, "seal": _UNSEALED}, indent=1, sort_keys=True, allow_nan=False, default=_scalar) + "\n"
    write_bytes(path, _sealed(text.encode()))


def _sealed(data: bytes) -> bytes:
    start = _seal_in(data)
    assert start is not None and data[start : start + 64] == _UNSEALED.encode()
    return data[:start] + hashlib.sha256(data).hexdigest().encode() + data[start + 64 :]


def _seal_in(head: bytes) -> int | None:
    """Where the 64 digits of the seal stand in a record or in a safetensors header."""
    found = _SEAL.search(head)
    return None if found is None else found.start(found.lastindex or 0)


def seal_holds(path: str | Path) -> bool | None:
    """Whether every byte of a safetensors or JSON artifact is as it was written; None when it carries no seal."""
    digest = hashlib.sha256()
    with outside.opened(path, missing=_MISSING.format(path)) as f:
        head = f.read(8)
        # of a safetensors header; the first bytes of a JSON text make a huge number
        size = int.from_bytes(head, "little")
        if size >= _LONGEST_HEADER:
            outside.regular(path, outside.LARGEST_JSON)
        head += f.read(size if size < _LONGEST_HEADER else -1)
        start = _seal_in(head)
        if start is None:
            return None
        digest.update(head[:start] + _UNSEALED.encode() + head[start + 64 :])
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == head[start : start + 64].decode()


def check_sealed(path: Path) -> None:
    """Raise WinnowError when an artifact that a stage reads is not as it was written; of a model folder, when any file
    is not.

    Files that carry no seal come from outside and are known by their sha256 in the record of what is made of them.
    """
    file = path / SIDECAR if path.is_dir() else stands_for(path)
    mend = "delete it and rerun the stage that writes it (`python -m winnow.stages.verify` says how)"
    if file.suffix not in (".safetensors", ".json") or not file.exists():
        return
    holds = seal_holds(file)
    if holds is None and file.suffix == ".safetensors" and "stage" in read_metadata(file):
        holds = False  # a job wrote it, and what was hit is the seal itself
    if holds is False:
        raise WinnowError(
            f"{file}: damaged: its bytes are not those that were written (its seal does not hold); {mend}"
        )
    if file.name != SIDECAR:
        return
    document = read_json(file)
    files = document.get("files") if isinstance(document, dict) else None
    if not isinstance(files, dict):
        raise WinnowError(f"{file}: no record of a model folder; {mend}")
    for name, digest in files.items():
        member = file.with_name(Path(name).name)
        if not member.is_file() or sha256_file(member) != digest:
            raise WinnowError(f"{member}: damaged: it is not what {file} vouches for; {mend}")


def _scalar(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")


def read_json(path: str | Path) -> Any:
    """Read a JSON artifact; WinnowError when it is missing or broken."""
    try:
        return outside.read_json(path, missing=_MISSING.format(path))
    except ValueError as error:
        raise WinnowError(
            f"{path}: not a complete JSON file ({error}); make it again: `snakemake --force {path}`"
        ) from None


def local(path: Path) -> str:
    """`path` as artifacts record it: relative to the working folder when it lies there, so that a moved project still
    verifies.
    """
    try:
        return path.absolute().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path.absolute())


def stands_for(file: Path) -> Path:
    """What a child names as its parent: for a file of a model folder the sidecar, which vouches for them all; else the
    file.
    """
    sidecar = file.with_name(SIDECAR)
    return sidecar if sidecar.exists() else file


def sha256_file(path: str | Path) -> str:
    """Hex sha256 of a file, or of a folder's files in name order (names count)."""
    path = _existing(path)
    digest = hashlib.sha256()
    if path.is_dir():
        for member in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{member.relative_to(path).as_posix()}\0{sha256_file(member)}\n".encode())
        return digest.hexdigest()
    with outside.opened(path, sys.maxsize) as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_text(*texts: str) -> str:
    """Hex sha256 of texts, each closed by a zero byte."""
    return hashlib.sha256("".join(t + "\0" for t in texts).encode()).hexdigest()


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise WinnowError(f"{path}: no such file; {_MISSING.format(path)}")
    return path


def _regular(path: str | Path) -> Path:
    return outside.regular(path, missing=_MISSING.format(path))


def write_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor | np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Write tensors (torch or NumPy) as safetensors with `metadata` as one key of canonical JSON; atomic, byte-stable,
    sealed.
    """
    text = {METADATA_KEY: canonical_json({"format": FORMAT_VERSION, **metadata, "seal": _UNSEALED})}
    arrays = all(isinstance(t, np.ndarray) for t in tensors.values())
    save: Callable[..., bytes]
    if arrays:
        from safetensors.numpy import save

        ready: dict[str, Any] = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
    else:
        from safetensors.torch import save

        ready = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}  # type: ignore[union-attr]
    write_bytes(path, _sealed(save(ready, metadata=text)))


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The `winnow` metadata of a safetensors artifact ({} for a file that winnow did not write)."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(_regular(path), framework="numpy") as f:
            found = outside.parse_json((f.metadata() or {}).get(METADATA_KEY, "{}"))
    except (SafetensorError, ValueError, OSError) as error:
        raise WinnowError(_broken(path, error)) from None
    if not isinstance(found, dict):
        raise WinnowError(
            f"{path}: its metadata are not those of a file that winnow wrote; import it with an import stage"
        )
    if not isinstance(version := found.get("format", 1), int) or version > FORMAT_VERSION:
        raise WinnowError(
            f"{path}: is of format {version}, this winnow reads formats up to {FORMAT_VERSION}; use a newer winnow"
        )
    return found


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file as NumPy arrays, without importing torch."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(_regular(path))
    except (SafetensorError, OSError, MemoryError) as error:
        raise WinnowError(_broken(path, error)) from None


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file on the CPU."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(_regular(path))
    except (SafetensorError, OSError, MemoryError) as error:
        raise WinnowError(_broken(path, error)) from None


def _broken(path: str | Path, error: Exception) -> str:
    if Path(path).suffix != ".safetensors":
        return (
            f"{path}: no safetensors file; masks and weights of other programs come in with "
            "winnow.stages.import_ticket and winnow.stages.import_weights"
        )
    return f"{path}: truncated or not a safetensors file ({error}); make it again: `snakemake --force {path}`"
