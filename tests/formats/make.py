"""Write one small artifact of each kind in the format of today: `python tests/formats/make.py
tests/formats/v<FORMAT_VERSION>`.

Run once for each version of the formats, never again: what lies there must stay readable for ever. `expected.json`
holds what the readers of the day of writing read in it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

DATA = {"dataset": "digits", "classes": [0, 1], "val_images": 20, "train_images": 20, "test_images": 20}
TRAIN = {"epochs": 1, "batch_size": 10, "lr": 0.05}
TEXT = {"dataset": "embedded", "max_length": 16, "train_examples": 32, "test_examples": 8, "val_fraction": 0.1}
BERT = {"source": "tiny", "layers": 1, "hidden": 8, "heads": 1, "intermediate": 8, "vocabulary": 200}
TEXT_TRAIN = {"epochs": 1, "batch_size": 16, "optimizer": "adamw", "lr": 0.01}
COMMON = {"compute": {}, "seed": 0}
GEM = {"arch": "resnet8", "width": 2, "classifier": "conv1x1", "bn": "non_affine"}


def run(stage: str, config: dict[str, Any], **files: str) -> None:
    """One stage in this folder."""
    words = ["--config", json.dumps(config), "--device", "cpu", "--scratch", "scratch"]
    for name, value in files.items():
        words += [f"--{name.replace('_', '-')}", *value.split()]
    assert importlib.import_module(f"winnow.stages.{stage}").stage.run(words) == 0, stage


def images() -> None:
    """A folder of eight tiny PNG images."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            for i in range(2):
                path = Path(f"images/{split}/{label}/{i}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(generator.integers(0, 256, (6, 5, 3), np.uint8)).save(path)


def main(folder: Path) -> None:
    """Make them, and write down what is read in them."""
    folder.mkdir(parents=True)
    os.chdir(folder)
    model = {"arch": "resnet8", "width": 2}
    run(
        "pretrain",
        {"method": "std", "data": DATA, "model": model, "train": TRAIN, **COMMON},
        out="weights.safetensors",
        metrics="weights.json",
    )
    run(
        "prune",
        {"method": "magnitude", "remaining_percent": 40},
        weights="weights.safetensors",
        out="ticket.mask.safetensors",
    )
    run("gem_init", {"data": DATA, "model": GEM, "init": {}, "seed": 0}, out="init.safetensors")
    search = {"algo": "hc_iter", "target_sparsity": 20, "iter_period": 1}
    run("gem_search", {"search": search, "data": DATA, "train": TRAIN | {"epochs": 2}, **COMMON},
     init="init.safetensors",
        out="gem.mask.safetensors", order="order.safetensors", metrics="gem.json")  # fmt: skip
    run("import_text_model", {"model": BERT, "data": TEXT}, out="text_model/model.safetensors")
    run("search_robust_ticket",
     {"data": TEXT, "train": TEXT_TRAIN, "masks": {"granularity": "row"}, "adversary": {"steps": 1}, "keep_epochs": [1],
      **COMMON},
        model="text_model/model.safetensors", scores="scores.safetensors", metrics="scores.json")  # fmt: skip
    attack = {"recipe": "textfooler", "candidates": "embedded"}
    run("attack_text", {"data": TEXT, "attack": attack, "examples": 2, "compute": {}},
     model="text_model/model.safetensors",
        out="rows.jsonl", metrics="rows.json")  # fmt: skip
    images()
    run("pack_images", {"image_size": 4}, source="images", out="packed")
    for path in sorted(Path("images").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    Path("images").rmdir()
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from contents import contents

    Path("expected.json").write_text(json.dumps(contents(Path()), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
