"""Magnitude pruning: the largest weights over all layers together stay. NumPy only."""

from __future__ import annotations

import numpy as np

from winnow.errors import WinnowError
from winnow.prune.counts import Arrays, keep_largest


def masks(weights: Arrays, count: int, alive: Arrays | None = None, invert: bool = False) -> dict[str, np.ndarray]:
    """Global L1 pruning: keep the `count` largest |w| over all arrays together, among the `alive` ones if given.

    Where magnitudes differ the masks are those of torch.nn.utils.prune.global_unstructured with L1Unstructured.
    invert: the smallest stay instead, a sanity check (Frankle et al., ICLR 2021).
    """
    scores = {name: -np.abs(values) if invert else np.abs(values) for name, values in weights.items()}
    if alive is not None:
        if count > (living := sum(int(alive[name].sum()) for name in scores)):
            raise WinnowError(f"cannot keep {count} weights: {living} are left")
        scores = {name: np.where(alive[name], values, -np.inf) for name, values in scores.items()}
    return keep_largest(scores, count)
