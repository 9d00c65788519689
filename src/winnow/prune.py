"""Choosing which weights a ticket keeps: exact counts, reproducible ties, NumPy only (light stages never import torch)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from winnow.errors import WinnowError
from winnow.rng import numpy_generator
from winnow.ticket import Ticket

Arrays = Mapping[str, np.ndarray]


def keep_largest(scores: Arrays, count: int) -> dict[str, np.ndarray]:
    """Masks that keep exactly the `count` largest scores over all arrays together (ties: earlier names and positions first).

    Raises WinnowError when `count` is out of range or a score is NaN.
    """
    names = list(scores)
    flat = np.concatenate([np.asarray(scores[n], dtype=np.float32).reshape(-1) for n in names])
    if np.isnan(flat).any():
        broken = next(n for n in names if np.isnan(scores[n]).any())
        raise WinnowError(f"{broken} holds NaN; the run that wrote it diverged, rerun it with a lower learning rate")
    if not 0 <= count <= flat.size:
        raise WinnowError(f"cannot keep {count} of {flat.size} weights")
    chosen = np.zeros(flat.size, dtype=bool)
    if count:
        threshold = np.partition(flat, flat.size - count)[flat.size - count]
        chosen = flat > threshold
        ties = np.flatnonzero(flat == threshold)
        chosen[ties[: count - int(chosen.sum())]] = True
    return _split(chosen, {n: np.shape(scores[n]) for n in names})


def magnitude(weights: Arrays, count: int, alive: Arrays | None = None) -> dict[str, np.ndarray]:
    """Global L1 pruning: keep the `count` largest |w| over all arrays together, among the `alive` ones if given.

    Where magnitudes differ the masks are those of torch.nn.utils.prune.global_unstructured with L1Unstructured.
    """
    scores = {name: np.abs(values) for name, values in weights.items()}
    if alive is not None:
        if count > (living := sum(int(alive[name].sum()) for name in scores)):
            raise WinnowError(f"cannot keep {count} weights: {living} are left")
        scores = {name: np.where(alive[name], values, -1.0) for name, values in scores.items()}
    return keep_largest(scores, count)


def imp_count(total: int, round_number: int, prune_percent: float) -> int:
    """Weights that remain after round k of IMP: round(total * (1 - p/100)^k), so rounding does not add up over rounds."""
    return round(total * (1.0 - prune_percent / 100.0) ** round_number)


def random_like(ticket: Ticket, *seed: object) -> dict[str, np.ndarray]:
    """Random masks with the ticket's shapes and per-layer kept counts."""
    masks = {}
    for name, mask in ticket.arrays.items():
        rng = numpy_generator(*seed, "random", name)
        masks[name] = rng.permutation(mask.reshape(-1)).reshape(mask.shape)
    return masks


def random_global(shapes: Mapping[str, tuple[int, ...]], count: int, *seed: object) -> dict[str, np.ndarray]:
    """Random masks that keep exactly `count` weights, uniform over all arrays together."""
    total = sum(int(np.prod(s)) for s in shapes.values())
    if not 0 <= count <= total:
        raise WinnowError(f"cannot keep {count} of {total} weights")
    flat = numpy_generator(*seed, "random").permutation(np.arange(total) < count)
    return _split(flat, shapes)


def _split(flat: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    masks, start = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        masks[name] = flat[start : start + size].reshape(shape)
        start += size
    return masks
