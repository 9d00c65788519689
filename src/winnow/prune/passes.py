"""What methods that run a model share: batches of any kind, their loss, a model that stays as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from winnow.errors import WinnowError

Batch = Mapping[str, Any] | Sequence[Any]  # keyword arguments, labels among them; or (inputs, labels)


def weights_of(model: nn.Module, names: list[str]) -> list[nn.Parameter]:
    """The parameters of these names."""
    parameters = dict(model.named_parameters())
    return [parameters[n] for n in names]


def forward(model: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
    """The model's logits (B, classes) for a batch and its labels (or None), on the model's device."""
    device = next(model.parameters()).device
    if isinstance(batch, Mapping):
        placed = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        labels = placed.pop("labels", None)
        result = model(**placed)
    else:
        inputs, *rest = batch
        labels = rest[0].to(device) if rest else None
        result = model(inputs.to(device))
    return getattr(result, "logits", result), labels


def shares(batches: Sequence[Batch]) -> list[float]:
    """The part of all examples that each batch holds, by its labels. Raises WinnowError when a batch has none."""
    labels = [b.get("labels") if isinstance(b, Mapping) else (b[1] if len(b) > 1 else None) for b in batches]
    if not labels or any(y is None for y in labels):
        raise WinnowError(
            "batches: this method needs examples with labels; give batches of (inputs, labels), or a `labels` key"
        )
    sizes = [len(y) for y in labels if y is not None]
    return [size / sum(sizes) for size in sizes]


def losses(model: nn.Module, batches: Sequence[Batch], temperature: float = 1.0) -> Iterator[Tensor]:
    """Each batch's part of the mean cross-entropy of logits / temperature over all examples; they sum to it."""
    for batch, share in zip(batches, shares(batches), strict=True):
        logits, labels = forward(model, batch)
        yield F.cross_entropy(logits / temperature, labels) * share


def gradients(parts: Iterable[Tensor], weights: list[nn.Parameter]) -> list[Tensor]:
    """Gradients of the sum of `parts` with respect to `weights`, zero where a weight takes no part.

    One part is in memory at a time.
    """
    sums = [torch.zeros_like(w) for w in weights]
    for part in parts:
        for have, new in zip(sums, torch.autograd.grad(part, weights, materialize_grads=True), strict=True):
            have.add_(new)
    return sums


@contextmanager
def borrowed(model: nn.Module, names: list[str], training: bool) -> Iterator[None]:
    """Within: training or evaluation mode, the named weights require gradients.

    Afterwards modes, buffers and flags are as before.
    """
    modes = {module: module.training for module in model.modules()}
    buffers = {name: value.detach().clone() for name, value in model.named_buffers()}
    weights = weights_of(model, names)
    flags = [w.requires_grad for w in weights]
    model.train(training)
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in model.named_buffers():
                value.copy_(buffers[name])
        for module, mode in modes.items():
            module.training = mode
        for weight, flag in zip(weights, flags, strict=True):
            weight.requires_grad_(flag)


def to_numpy(scores: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The scores as arrays."""
    return {name: values.float().cpu().numpy() for name, values in scores.items()}
