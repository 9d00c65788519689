"""Weights that must be downloaded: torchvision's and the Hugging Face hub's, into a folder below data_root."""

from __future__ import annotations

import re
from pathlib import Path

from winnow.config.vision import WeightsSource
from winnow.errors import WinnowError, nearest


def fetch_weights(source: WeightsSource, data_root: Path, download: bool) -> Path:
    """The local path of the weights, downloaded first when allowed; WinnowError names the file to put in place
    otherwise.
    """
    if source.torchvision is not None:
        return _torchvision(source.torchvision, data_root / "weights", download)
    if source.hub is not None:
        return _hub(source.hub, data_root / "weights", download)
    raise WinnowError("--file: required for weights.file")


def _torchvision(name: str, folder: Path, download: bool) -> Path:
    import torch

    from winnow.compat import torchvision

    known = [str(w) for m in torchvision().models.list_models() for w in torchvision().models.get_model_weights(m)]
    try:
        url = torchvision().models.get_weight(name).url
    except (ValueError, AttributeError, KeyError):
        raise WinnowError(f"weights.torchvision: {name!r} is unknown{nearest(name, known)}") from None
    path = folder / Path(url).name
    if path.is_file():
        return path
    if not download:
        raise WinnowError(f"{path}: no such file; put the weights of {name} there, or set download: true")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # torchvision's names end in the start of the file's sha256
        published = re.search(r"-([0-9a-f]{8,})\.pth$", url)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=published[1] if published else None, progress=False)
    except (OSError, RuntimeError) as error:
        raise WinnowError(
            f"weights.torchvision: {name} cannot be downloaded ({error}); put the file at {path}"
        ) from None
    return path


def _hub(spelled: str, folder: Path, download: bool) -> Path:
    repo, _, name = spelled.partition(":")
    repo, _, revision = repo.partition("@")
    if not name or repo.count("/") != 1:
        raise WinnowError(f"weights.hub: {spelled!r} is not owner/name:file, or owner/name@revision:file")
    path = folder / (repo.replace("/", "--") + (f"@{revision}" if revision else "")) / name
    if path.is_file():
        return path
    if not download:
        raise WinnowError(f"{path}: no such file; put {name} of {repo} there, or set download: true")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo, name, revision=revision or None, local_dir=path.parent))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise WinnowError(f"weights.hub: {spelled} cannot be downloaded ({error}); put the file at {path}") from None
