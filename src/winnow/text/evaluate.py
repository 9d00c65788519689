"""Predictions and accuracy of a text classifier."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from winnow.config.parts import Compute
from winnow.text.batches import Encoded, by_length
from winnow.train.device import autocast

EVAL_BATCH = 128


@torch.no_grad()
def predict(model: nn.Module, data: Encoded, compute: Compute, device: torch.device) -> Tensor:
    """Logits (n, classes), float32 on the CPU, in the order of the examples."""
    model.eval()
    found: list[Tensor] = []
    order: list[np.ndarray] = []
    for index, batch in by_length(data, EVAL_BATCH, device):
        batch.pop("labels")
        with autocast(compute, device):
            found.append(model(**batch).logits.float().cpu())
        order.append(index)
    return torch.cat(found)[torch.from_numpy(np.argsort(np.concatenate(order), kind="stable"))]


def accuracy(model: nn.Module, data: Encoded, compute: Compute, device: torch.device) -> float:
    """Percentage of examples classified right, 0..100."""
    right = predict(model, data, compute, device).argmax(dim=1) == torch.from_numpy(data.labels)
    return 100.0 * right.double().mean().item()
