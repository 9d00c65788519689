"""Fetching attack assets over the network, safely: checked names inside archives, checksums, nothing half written."""

from __future__ import annotations

import io
import logging
import os
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winnow.artifacts import sha256_file
from winnow.errors import WinnowError
from winnow.text.assets import NLTK_FILES, USE_FOLDER

log = logging.getLogger("winnow")
COUNTER_FITTED = "https://textattack.s3.amazonaws.com/word_embeddings/paragramcf"
USE = "https://tfhub.dev/google/universal-sentence-encoder/3?tf-hub-format=compressed"
NLTK = "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages"


@dataclass(frozen=True)
class Wanted:
    """Where assets go and which ones: NLTK packages by name, hub models by role."""

    folder: Path
    nltk: list[str]
    hub: dict[str, str]


def obtain(role: str, wanted: Wanted, known: dict[str, Any] | None, download: bool) -> dict[str, Any]:
    """Path and sha256 of one role's files, fetched if missing; WinnowError when they changed or cannot be had."""
    if role == "neighbours":
        raise WinnowError(
            "neighbours: a neighbour list is a file of your own; give it as assets.neighbours, or use counter_fitted"
        )
    target = wanted.folder / role
    missing = [target] if not target.exists() else []
    if role == "nltk":
        zips = [target / f"{NLTK_FILES[p]}.zip" for p in wanted.nltk]
        missing = [z for z in zips if not z.exists() and not z.with_suffix("").exists()]
    if missing and not download:
        raise WinnowError(
            f"{missing[0]}: missing; run this command with --download where there is a network, or copy it here"
        )
    for path in missing:
        log.info("fetching %s", path)
        _fetch(role, path, wanted)
    found = {"path": str(target), "sha256": sha256_file(target)}
    if known and not missing and known["sha256"] != found["sha256"]:
        raise WinnowError(
            f"{target}: changed since it was fetched (sha256 differs from the manifest); delete it and fetch again"
        )
    return found


def _fetch(role: str, path: Path, wanted: Wanted) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if role == "nltk":
        kind = path.parent.name
        data = _get(f"{NLTK}/{kind}/{path.name}")
        _publish(path, lambda temporary: temporary.write_bytes(data))
    elif role == "counter_fitted":
        _publish(path, lambda temporary: _unzip(_get(COUNTER_FITTED), temporary, strip="paragramcf"))
    elif role == "use":
        _publish(path, lambda temporary: _untar(_get(USE), temporary / USE_FOLDER))
    else:
        _publish(path, lambda temporary: _from_hub(wanted.hub[role], temporary))


def _publish(path: Path, write: Any) -> None:
    """Let `write` fill a temporary neighbour of `path`, then rename it."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
        temporary = Path(folder) / path.name
        write(temporary)
        os.replace(temporary, path)


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.read()
    except (urllib.error.URLError, OSError) as error:
        raise WinnowError(
            f"{url}: cannot be fetched ({error}); run this where there is a network, then copy the folder"
        ) from None


def _unzip(data: bytes, target: Path, strip: str) -> None:
    """Unpack a zip into `target`; a member that would land outside is refused. A top folder named `strip` is left
    out.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile as error:
        raise WinnowError(f"{target.name}: the downloaded archive is broken ({error}); fetch again") from None
    for member in archive.infolist():
        parts = [p for p in Path(member.filename).parts if p not in (strip, ".")]
        if Path(member.filename).is_absolute() or ".." in parts:
            raise WinnowError(f"{target.name}: archive member {member.filename!r} would leave its folder; not unpacked")
        if parts and not member.is_dir():
            file = target.joinpath(*parts)
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, file.open("wb") as out:
                shutil.copyfileobj(source, out)


def _untar(data: bytes, target: Path) -> None:
    import tarfile

    target.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(target, filter="data")  # refuses members that leave the folder
    except tarfile.TarError as error:
        raise WinnowError(f"{target.name}: the downloaded archive is broken or unsafe ({error}); fetch again") from None


def _from_hub(name: str, target: Path) -> None:
    import huggingface_hub

    try:
        name, _, revision = name.partition("@")
        huggingface_hub.snapshot_download(
            name,
            revision=revision or None,
            local_dir=target,
            allow_patterns=["*.json", "*.txt", "*.safetensors"],
            ignore_patterns=["onnx/*", "openvino/*"],
        )
    except Exception as error:  # requests, httpx and the hub each raise their own
        reason = " ".join(str(error).split())[:160]
        raise WinnowError(
            f"{name}: cannot be fetched from the hub ({reason}); run this where there is a network"
        ) from None
    shutil.rmtree(target / ".cache", ignore_errors=True)
