"""Which parameters of a model artifact are its classification head, which a transfer to another task replaces."""

from __future__ import annotations

from pathlib import Path

import torch

from winnow.artifacts import MODEL_FILE, read_arrays
from winnow.vision import models
from winnow.weights import record_of


def head_of(path: str | Path) -> list[str]:
    """Names of the classification head's parameters in a model artifact; [] for a file that records no model."""
    record = record_of(path)
    if record.get("kind") == "text_model":
        encoder = record["prunable"][0].partition(".")[0]
        file = Path(path) / MODEL_FILE if Path(path).is_dir() else Path(path)
        return [name for name in read_arrays(file) if name.partition(".")[0] != encoder]
    if "model" not in record:
        return []
    with torch.device("meta"):
        return models.head_names(models.from_spec(record["model"]))
