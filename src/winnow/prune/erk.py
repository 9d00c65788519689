"""ERK: random tickets with Erdős–Rényi-kernel densities (Mocanu et al., 2018; Evci et al., ICML 2020, section 3).

NumPy only.
"""

from __future__ import annotations

import numpy as np

from winnow.prune.counts import Arrays, apportion, check_count, draw


def layer_counts(shapes: list[tuple[int, ...]], count: int) -> list[int]:
    """Weights that each layer keeps, together exactly `count`.

    The density of a layer is in proportion to (n_in + n_out + kw + kh) / (n_in * n_out * kw * kh), of a linear
    layer to (n_in + n_out) / (n_in * n_out). Layers whose density would exceed 1 stay dense; the others share
    what is left.
    """
    sizes = np.array([np.prod(s, dtype=np.int64) for s in shapes])
    check_count(count, int(sizes.sum()))
    raw = np.array([sum(s) / np.prod(s, dtype=np.int64) for s in shapes])
    dense = np.zeros(len(shapes), dtype=bool)
    while not dense.all():
        scale = (count - sizes[dense].sum()) / (raw * sizes)[~dense].sum()
        over = ~dense & (scale * raw > 1.0)
        if not over.any():
            break
        dense |= over
    shares = np.where(dense, sizes, 0.0 if dense.all() else scale * raw * sizes)
    return apportion(shares, count).tolist()


def masks(weights: Arrays, count: int, *, seed: object = 0) -> dict[str, np.ndarray]:
    """Random masks with the ERK count in every layer; of `weights` only shapes, (out, in, ...), are read."""
    counts = layer_counts([values.shape for values in weights.values()], count)
    return draw(weights, counts, seed, "erk")
