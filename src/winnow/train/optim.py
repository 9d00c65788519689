"""Optimisers from configuration, and the learning rate as a closed form of the step: nothing to checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from winnow.config.parts import Train


def make_optimizer(config: Train, parameters: Iterable[Any]) -> torch.optim.Optimizer:
    """SGD, Adam (weight decay in the gradient) or AdamW (decoupled) over parameters or parameter groups; on a GPU in
    one kernel.
    """
    parameters = list(parameters)
    fused = _on_cuda(parameters) or None  # None: torch's own choice
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            fused=fused,
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov and config.momentum > 0,
        )
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def _on_cuda(parameters: list[Any]) -> bool:
    tensors = [t for p in parameters for t in (p["params"] if isinstance(p, dict) else [p])]
    return bool(tensors) and all(t.is_cuda for t in tensors)


def lr_factor(config: Train, step: int, steps_per_epoch: int) -> float:
    """Factor on the peak rate at optimisation step `step` (0-based).

    constant, multistep and cosine move at epoch boundaries (as the papers' schedulers do, cosine with T_max = epochs,
    or schedule_epochs);
    linear decays every step to 0 at the end (as BERT's fine-tuning does). Warm-up is linear over the first steps.
    """
    total = max(1, config.epochs * steps_per_epoch)
    warmup = config.warmup_fraction * total  # unrounded, as the papers' code passes it
    if step < warmup:
        return step / max(1.0, warmup)
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "linear":
        return max(0.0, (total - step) / max(1.0, total - warmup))
    epoch = step // steps_per_epoch
    if config.schedule == "multistep":
        return config.gamma ** sum(epoch >= m for m in config.milestones)
    return 0.5 * (1.0 + math.cos(math.pi * epoch / max(1, config.schedule_epochs or config.epochs)))


def decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: biases and LayerNorm without weight decay (BERT's fine-tuning)."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    free = [p for n, p in named if n.endswith("bias") or "layernorm" in n.lower() or "layer_norm" in n.lower()]
    kept = [p for _, p in named if not any(p is q for q in free)]
    return [{"params": kept, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
