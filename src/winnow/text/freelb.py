"""FreeLB on the input embeddings: several gradient steps away from the example, the loss averaged along the way.

Zhu et al. 2020, algorithm 1; as robust tickets use it (ACL 2022.acl-long.157, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from winnow.config.text import FreeLB
from winnow.text.models import logits_of
from winnow.train import ranks


def initial_delta(uniform: Tensor, attention_mask: Tensor, config: FreeLB) -> Tensor:
    """The random start from U(-1, 1) noise (batch, length, dim), zero on padding.

    l2: scaled by init_magnitude / sqrt(tokens * dim) of each example; linf: by init_magnitude.
    """
    real = attention_mask.to(uniform.dtype)
    delta = uniform * real[:, :, None]
    if config.norm == "linf":
        return delta * config.init_magnitude
    size = real.sum(dim=1) * uniform.shape[-1]
    return delta * (config.init_magnitude / size.sqrt())[:, None, None]


def next_delta(delta: Tensor, gradient: Tensor, config: FreeLB) -> Tensor:
    """One ascent step with the gradient normalised per example, then projection onto the ball if there is one."""
    flat = gradient.flatten(1)
    order = float("inf") if config.norm == "linf" else 2.0
    length = torch.linalg.vector_norm(flat, ord=order, dim=1).clamp_min(1e-8)[:, None, None]
    delta = delta + config.step_size * gradient / length
    if config.max_norm is None:
        return delta
    if config.norm == "linf":
        return delta.clamp(-config.max_norm, config.max_norm)
    reach = torch.linalg.vector_norm(delta.flatten(1), dim=1).clamp_min(1e-8)[:, None, None]
    return delta * (config.max_norm / reach).clamp(max=1.0)


def freelb_step(
    embeddings: Tensor,
    attention_mask: Tensor,
    loss_of: Callable[[Tensor], Tensor],
    config: FreeLB,
    uniform: Tensor | None = None,
) -> list[Tensor]:
    """Accumulate the gradients of one optimisation step; returns the loss of each adversarial step, divided by `steps`.

    `embeddings` (batch, length, dim): the model's word embeddings, with or without a graph behind them; `loss_of` maps
    perturbed embeddings to the mean loss of the batch. Gradients of every parameter behind `loss_of` add up over the
    steps; those behind `embeddings` get the sum in one backward pass. `uniform`: U(-1, 1) noise instead of a fresh
    draw.
    """
    clean = embeddings.detach()
    if uniform is None:
        uniform = ranks.noise(clean.float(), lambda t, common: t.uniform_(-1.0, 1.0, generator=common))
    delta = initial_delta(uniform, attention_mask, config)
    total, losses = torch.zeros_like(clean), []
    for step in range(config.steps):
        perturbed = (clean + delta).requires_grad_()
        loss = loss_of(perturbed) / config.steps
        loss.backward()
        losses.append(loss.detach())
        assert perturbed.grad is not None
        total += perturbed.grad
        if step + 1 < config.steps:
            delta = next_delta(delta, perturbed.grad, config)
    if embeddings.requires_grad:
        embeddings.backward(total)
    return losses


class AdversarialStep:
    """`step` for `fit`: the FreeLB losses of a batch, their gradients accumulated. Embeddings may be frozen or
    train.
    """

    def __init__(
        self,
        model: nn.Module,
        config: FreeLB,
        autocast: AbstractContextManager[Any] | None = None,
        label_smoothing: float = 0.0,
    ):
        self.model, self.config, self.autocast = model, config, autocast or nullcontext()
        self.label_smoothing = label_smoothing
        self.losses: list[Tensor] = []

    def __call__(self, batch: Mapping[str, Tensor], uniform: Tensor | None = None) -> Tensor:
        """The loss averaged over the adversarial steps, a scalar."""
        mask, labels = batch["attention_mask"], batch["labels"]
        others = {k: v for k, v in batch.items() if k not in ("input_ids", "labels")}
        lookup = self.model.get_input_embeddings()  # type: ignore[operator]
        with torch.set_grad_enabled(lookup.weight.requires_grad):
            embeddings = lookup(batch["input_ids"])

        def loss_of(perturbed: Tensor) -> Tensor:
            with self.autocast:
                logits = logits_of(self.model, perturbed, batch["input_ids"], others)
            return cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)

        self.losses = freelb_step(embeddings, mask, loss_of, self.config, uniform)
        return torch.stack(self.losses).sum()
