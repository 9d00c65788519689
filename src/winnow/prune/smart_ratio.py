"""Smart ratio: random tickets whose deeper layers keep fewer weights (Su et al., NeurIPS 2020). NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from winnow.errors import WinnowError
from winnow.prune.counts import Arrays, draw

LAST_LAYER_KEEPS = 0.3


def layer_counts(sizes: Sequence[int], count: float, divide_by_square: bool = False) -> list[int]:
    """Weights that each layer keeps, in layer order; together at most `count`.

    Layer l of L keeps in proportion to its size times (L-l+1)^2 + (L-l+1), over l^2 for VGG (`divide_by_square`); the
    last layer keeps 30 %. What would exceed a layer's size goes to the next. What overflows and what room there is for
    it are truncated layer by layer, as published. Raises WinnowError when the last layer's share alone exceeds the
    target, or the target does not fit into the layers.
    """
    layers = len(sizes)
    if layers < 2:
        raise WinnowError(f"smart ratio needs at least two layers, the model has {layers}")
    total, head = sum(sizes), LAST_LAYER_KEEPS * sizes[-1]
    budget = count - head
    refused = f"smart ratio cannot keep {100 * count / total:g} %"
    if budget <= 0:
        raise WinnowError(f"{refused}: the last layer alone keeps {100 * head / total:.3g} %")
    shares = []
    for l in range(1, layers):  # noqa: E741  (the paper's letter)
        proportion = (layers - l + 1) ** 2 + (layers - l + 1)
        shares.append(sizes[l - 1] * proportion / (l**2 if divide_by_square else 1))
    scale = budget / sum(shares)
    counts, overflow = [], 0
    for size, share in zip(sizes, shares, strict=False):
        wanted = share * scale
        room = int(size - wanted)  # truncated towards zero, also where the share itself overflows
        if wanted > size or overflow > room:
            counts.append(size)
            overflow -= room
        else:
            counts.append(int(wanted + overflow))
            overflow = 0
    if overflow:
        raise WinnowError(f"{refused}: the last convolution overflows by {overflow} weights; lower the target")
    return [*counts, int(head)]


def masks(weights: Arrays, count: float, *, seed: object = 0, divide_by_square: bool = False) -> dict[str, np.ndarray]:
    """Random masks with the smart-ratio count in every layer (`weights` in layer order; only shapes are read)."""
    sizes = [values.size for values in weights.values()]
    return draw(weights, layer_counts(sizes, count, divide_by_square), seed, "smart_ratio")
