"""What the readers of winnow read in a folder of tests/formats."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def digest(arrays: Mapping[str, Any]) -> str:
    """sha256 over names, types, shapes and values."""
    made = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        made.update(f"{name} {array.dtype} {array.shape}\0".encode() + array.tobytes())
    return made.hexdigest()


def contents(folder: Path) -> dict[str, Any]:
    """Kind -> what is read, as JSON. Every reader that a later stage uses has a row."""
    import torch

    from winnow import Ticket
    from winnow.artifacts import read_arrays, read_json, read_metadata
    from winnow.gems.order import read_order
    from winnow.text.models import load_classifier
    from winnow.vision.models import load_pretrained
    from winnow.vision.packed import open_split
    from winnow.weights import prunable_arrays

    found: dict[str, Any] = {}
    weights = folder / "weights.safetensors"
    model, spec = load_pretrained(weights)
    found["weights"] = {"prunable": digest(prunable_arrays(weights)),
     "state": digest({k: v.numpy() for k, v in model.state_dict().items()}), "spec": spec}  # fmt: skip
    for name in ("ticket", "gem"):
        ticket = Ticket.load(folder / f"{name}.mask.safetensors")
        found[name] = {
            "masks": digest(ticket.arrays),
            "kept": ticket.kept,
            "total": ticket.total,
            "method": ticket.metadata["method"],
        }
    levels, scores = read_order(folder / "order.safetensors")
    found["prune order"] = {"levels": digest(levels), "scores": digest(scores)}
    about = read_metadata(folder / "scores.safetensors")
    found["scores"] = {"values": digest(read_arrays(folder / "scores.safetensors")), "shapes": about["shapes"],
     "epoch": about["search_epoch"]}  # fmt: skip
    text, tokenizer = load_classifier(folder / "text_model/model.safetensors")
    shown = tokenizer("the film was good", return_tensors="pt")
    with torch.no_grad():
        logits = text.eval()(**shown).logits[0].tolist()
    found["text model"] = {"prunable": digest(prunable_arrays(folder / "text_model")),
     "ids": shown["input_ids"][0].tolist(), "logits": [round(x, 3) for x in logits]}  # fmt: skip
    metrics = read_json(folder / "weights.json")
    found["metrics"] = {
        "keys": sorted(metrics),
        "provenance": sorted(metrics["provenance"]),
        "stage": metrics["provenance"]["stage"],
    }
    found["rows"] = [sorted(json.loads(line)) for line in (folder / "rows.jsonl").read_text().splitlines()]
    for split in ("train", "test"):
        packed, labels = open_split(folder / "packed", split)
        found[f"packed {split}"] = {
            "labels": labels.tolist(),
            "sizes": packed.sizes.tolist(),
            "pixels": digest({"": packed.whole()}),
        }
    return found
