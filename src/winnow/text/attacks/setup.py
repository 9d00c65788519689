"""What an attack job works with: the victim, its test examples, the attack; the same in every process of the job."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from winnow.config.parts import Compute
from winnow.config.text import TextData
from winnow.stage import Job
from winnow.text import compat
from winnow.text.attacks.recipes import build
from winnow.text.data import Examples, fixed_column, load_text
from winnow.text.models import check_classes, load_classifier
from winnow.train.device import configure

ROLES = ("neighbours", "counter_fitted", "masked_lm", "encoder", "use", "nltk")


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


def victim(job: Job[Any], worker: int = 0) -> tuple[Any, Examples]:
    """The victim on the worker's device (several GPUs are dealt out in turn), and the test split."""
    device = job.device
    if device.type == "cuda" and worker > 0:
        device = torch.device("cuda", worker % torch.cuda.device_count())
    return _victim(job["model"], job.config.data, job.config.compute, job.data_root, job.download, device)


def attack(job: Job[Any], worker: int = 0) -> tuple[Any, Examples]:
    """The TextAttack attack of the job's configuration, and the test split."""
    target, test = victim(job, worker)
    assets = {role: job.inputs.get(role) for role in ROLES}
    fixed = fixed_column(job.config.data, test.columns)
    return build(job.config.attack, target, assets, target.device, test.columns, fixed), test  # type: ignore[arg-type]
