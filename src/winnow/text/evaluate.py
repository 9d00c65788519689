"""Accuracy of a text classifier."""

from __future__ import annotations

import torch
from torch import nn

from winnow.config.parts import Compute
from winnow.text.batches import Encoded, by_length
from winnow.train import ranks
from winnow.train.device import autocast, explained

EVAL_BATCH = 128


@torch.no_grad()
def accuracy(model: nn.Module, data: Encoded, compute: Compute, device: torch.device) -> float:
    """Percentage of examples classified right, 0..100. Several processes take the batches in turn and add up."""
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    for batch in by_length(data, EVAL_BATCH, device, ranks.turns()):
        labels = batch.pop("labels")
        with autocast(compute, device), explained("take a GPU with more memory, or a smaller data.max_length"):
            right += (model(**batch).logits.argmax(dim=1) == labels).sum()
    return 100.0 * ranks.total(int(right)) / len(data.ids)
