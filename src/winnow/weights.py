"""Reading the prunable weights of a model artifact without torch: a safetensors file, or a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from winnow.artifacts import read_arrays, read_json, read_metadata
from winnow.errors import WinnowError, nearest

SIDECAR = "winnow.json"  # beside a Hugging Face folder's files: provenance, and which weights may be pruned


def prunable_names(path: str | Path) -> list[str]:
    """Names of the weights that pruning may touch, as the artifact records them; WinnowError when it records none."""
    path = Path(path)
    record = read_json(path / SIDECAR) if path.is_dir() else read_metadata(path)
    names = record.get("prunable")
    if not names:
        raise WinnowError(f"{path}: records no prunable weights; bring it in with an import stage of winnow first")
    return list(names)


def prunable_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The prunable weights by name, float32, in the artifact's recorded order."""
    path = Path(path)
    names = prunable_names(path)
    file = path / "model.safetensors" if path.is_dir() else path
    arrays = read_arrays(file)
    for name in names:
        if name not in arrays:
            raise WinnowError(f"{file}: prunable weight {name!r} is missing{nearest(name, arrays)}")
    return {name: arrays[name] for name in names}
