"""Random pruning with the counts of another ticket, layer by layer: the control of its positions. NumPy only."""

from __future__ import annotations

import numpy as np

from winnow.rng import numpy_generator
from winnow.ticket import Ticket


def masks(like: Ticket, *seed: object) -> dict[str, np.ndarray]:
    """Random masks with the shapes and the kept counts, layer by layer, of the ticket `like`."""
    found = {}
    for name, mask in like.arrays.items():
        rng = numpy_generator(*seed, "random", name)
        found[name] = rng.permutation(mask.reshape(-1)).reshape(mask.shape)
    return found
