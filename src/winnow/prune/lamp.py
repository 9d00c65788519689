"""LAMP: magnitude pruning that finds the layers' densities by itself (Lee et al., ICLR 2021). NumPy only."""

from __future__ import annotations

import numpy as np

from winnow.prune.counts import Arrays, keep_largest


def masks(weights: Arrays, count: int) -> dict[str, np.ndarray]:
    """Keep the `count` largest LAMP scores over all arrays together; a layer's largest weight always scores 1."""
    return keep_largest({name: scores(values) for name, values in weights.items()}, count, np.float64)


def scores(weights: np.ndarray) -> np.ndarray:
    """w[u]^2 over the sum of w[v]^2 of all v that are no smaller than u: the LAMP score, float64.

    Shaped as `weights`. Of equal magnitudes the earlier position counts as the larger. A layer of zeros scores 0.
    """
    squares = np.square(weights.reshape(-1).astype(np.float64))
    falling = np.argsort(-squares, kind="stable")
    sums = np.cumsum(squares[falling])
    found = np.zeros_like(squares)
    found[falling] = np.divide(squares[falling], sums, out=np.zeros_like(sums), where=sums != 0)
    return found.reshape(weights.shape)
