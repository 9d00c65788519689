"""GraSP: the weights whose removal takes the most gradient flow away stay (Wang et al., ICLR 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from winnow.prune.counts import keep_largest
from winnow.prune.passes import Batch, borrowed, gradients, losses, to_numpy, weights_of

TEMPERATURE = 200.0  # divides the logits


def masks(model: nn.Module, names: list[str], count: int, batches: Sequence[Batch]) -> dict[str, np.ndarray]:
    """Masks that keep the `count` largest scores of the named weights together."""
    return keep_largest(to_numpy(scores(model, names, batches)), count)


def scores(model: nn.Module, names: list[str], batches: Sequence[Batch]) -> dict[str, Tensor]:
    """w * Hg: how much of the gradient norm goes when w does (equation 8, negated), in training mode.

    g is the gradient of the mean cross-entropy over all labelled examples of `batches`; Hg that of g * constant(g).
    """
    weights = weights_of(model, names)
    with borrowed(model, names, training=True):
        fixed = gradients(losses(model, batches, TEMPERATURE), weights)

        def products() -> Iterator[Tensor]:
            for loss in losses(model, batches, TEMPERATURE):
                moving = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
                yield torch.stack([(g * f).sum() for g, f in zip(moving, fixed, strict=True)]).sum()

        curvature = gradients(products(), weights)
    return {n: (h * w).detach() for n, h, w in zip(names, curvature, weights, strict=True)}
