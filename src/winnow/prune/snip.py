"""SNIP: the weights with the largest connection sensitivity stay (Lee et al., ICLR 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from winnow.prune.counts import keep_largest
from winnow.prune.passes import Batch, borrowed, gradients, losses, to_numpy, weights_of


def masks(model: nn.Module, names: list[str], count: int, batches: Sequence[Batch]) -> dict[str, np.ndarray]:
    """Masks that keep the `count` largest scores of the named weights together."""
    return keep_largest(to_numpy(scores(model, names, batches)), count)


def scores(model: nn.Module, names: list[str], batches: Sequence[Batch]) -> dict[str, Tensor]:
    """|dL/dw * w| of the mean cross-entropy over all labelled examples of `batches`, in training mode (equation 5)."""
    weights = weights_of(model, names)
    with borrowed(model, names, training=True):
        found = gradients(losses(model, batches), weights)
    return {n: (g * w).detach().abs() for n, g, w in zip(names, found, weights, strict=True)}
