"""Random pruning, uniform over all layers together. NumPy only."""

from __future__ import annotations

import numpy as np

from winnow.prune.counts import Arrays, check_count, split
from winnow.rng import numpy_generator


def masks(weights: Arrays, count: int, *, seed: object = 0) -> dict[str, np.ndarray]:
    """Random masks that keep exactly `count` weights, uniform over all arrays together (only shapes are read)."""
    total = sum(values.size for values in weights.values())
    check_count(count, total)
    flat = numpy_generator(seed, "random").permutation(np.arange(total) < count)
    return split(flat, {name: values.shape for name, values in weights.items()})
