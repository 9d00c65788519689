"""The order in which a search gave up its weights: one run of an iterative search holds the tickets of all sparsities.

NumPy only. Weights carry the number of the prune that removed them (survivors: one more than the last) and the score by
which they were ranked then; later prunes and higher scores are better.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from winnow.artifacts import read_arrays, read_metadata
from winnow.errors import WinnowError
from winnow.prune.counts import keep_largest

KIND = "prune_order"


def read_order(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Prune numbers (int16) and ranking scores (float32) by weight name, from what gem_search wrote."""
    if read_metadata(path).get("kind") != KIND:
        raise WinnowError(f"{path}: not a prune order; gem_search writes one as --order")
    stored = read_arrays(path)
    names = [n.removesuffix(".level") for n in stored if n.endswith(".level")]
    return {n: stored[f"{n}.level"] for n in names}, {n: stored[f"{n}.score"] for n in names}


def level_masks(levels: Mapping[str, np.ndarray], level: int) -> dict[str, np.ndarray]:
    """Masks after prune `level` (1-based): what goes later, or never, is kept."""
    return {name: values > level for name, values in levels.items()}


def draw(levels: Mapping[str, np.ndarray], scores: Mapping[str, np.ndarray], remaining: float) -> dict[str, np.ndarray]:
    """Masks that keep `remaining` (a fraction) of all weights: ceil(removed) go, in the order in which the search gave
    them up.

    Raises WinnowError below what the search pruned down to: its survivors are not ranked by any prune.
    """
    total = sum(v.size for v in levels.values())
    count = total - int(np.ceil((1.0 - remaining) * total))
    last = max(int(v.max()) for v in levels.values())
    fixed = sum(int((v == last).sum()) for v in levels.values())
    if count < fixed:
        raise WinnowError(
            f"cannot draw {100 * remaining:g} % from a search that stopped at {100 * fixed / total:.3f} %; search with "
            f"a lower target"
        )
    # the level whose members are only partly kept: everything pruned later stays, everything pruned earlier goes
    alive = {k: sum(int((v >= k).sum()) for v in levels.values()) for k in range(1, last + 1)}
    cut = max(k for k in alive if alive[k] >= count)
    later = alive.get(cut + 1, 0)
    ranked = {n: np.where(levels[n] == cut, scores[n], -np.inf).astype(np.float32) for n in levels}
    chosen = keep_largest(ranked, count - later)
    return {n: (levels[n] > cut) | chosen[n] for n in levels}
