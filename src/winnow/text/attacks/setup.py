"""What an attack works with: the victim, its test examples, the attacker; the same in every process that takes part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from winnow.config.parts import Compute
from winnow.config.text import TextAttack, TextData
from winnow.text import compat
from winnow.text.attacks.recipes import build
from winnow.text.data import Examples, fixed_column, load_text
from winnow.text.models import check_classes, load_classifier
from winnow.train.device import configure


@cache
def _victim(
    model: Path, data: TextData, compute: Compute, data_root: Path, download: bool, device: torch.device
) -> tuple[Any, Examples]:
    configure(compute, device)
    compat.textattack()
    from winnow.text.attacks.parts import Victim

    network, tokenizer = load_classifier(model)
    check_classes(network, data.classes, str(model))
    test = load_text(data, data_root, download, ("test",))["test"]
    return Victim(network, tokenizer, data.max_length, compute, device), test


@dataclass(frozen=True)
class Setup:
    """A victim and its attacker as values, from which each process builds them anew.

    model: a model folder or its model.safetensors; assets: role (assets.py) -> file or folder, None where none is given
    """

    model: Path
    data: TextData
    attacker: TextAttack
    compute: Compute
    assets: Mapping[str, Path | None]
    device: torch.device
    data_root: Path = Path("data")
    download: bool = False

    def victim(self, worker: int = 0) -> tuple[Any, Examples]:
        """The victim on the worker's device (several GPUs are dealt out in turn), and the test split."""
        device = self.device
        if device.type == "cuda" and worker > 0:
            device = torch.device("cuda", worker % torch.cuda.device_count())
        return _victim(self.model, self.data, self.compute, self.data_root, self.download, device)

    def attack(self, worker: int = 0) -> tuple[Any, Examples]:
        """The TextAttack attack, and the test split."""
        target, test = self.victim(worker)
        fixed = fixed_column(self.data, test.columns)
        return build(self.attacker, target, self.assets, target.device, test.columns, fixed), test
